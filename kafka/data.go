package kafka

// dataAPIs are the requests that carry records.
var dataAPIs []api
