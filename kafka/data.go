package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// dataAPIs are the requests that carry records.
var dataAPIs = []api{
	produceAPI(),
	fetchAPI(),
}

// fetchAPI is Fetch.
func fetchAPI() api {
	a := immediate(kmsg.Fetch, fetchMin, fetchMax, (*conn).fetch)
	a.inTurn = true
	return a
}

// produceAPI is Produce. It is listed from version 0 on, though it is served
// from 3: older librdkafkas take a higher least version for one that knows no
// compression, and say nothing.
func produceAPI() api {
	a := immediate(kmsg.Produce, produceMin, produceMax, (*conn).produce)
	a.advertised = 0
	return a
}
