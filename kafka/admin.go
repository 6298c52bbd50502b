package kafka

// adminAPIs are the requests about topics, configs, offsets and producers.
var adminAPIs []api
