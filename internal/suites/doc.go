// Package suites runs the test suites of Kafka's clients, as their authors wrote
// them, against the real server: one node, and a cluster of three.
//
// Which tests of a suite do not run is said in a list beside the test, *_excluded.txt,
// with the reason of each. Every other test has to run and pass: one that skips itself
// counts as a failure, and so does a name in the list that the suite does not have.
// How many ran is asserted too, so that a suite that has grown, or shrunk, is noticed.
//
// The tests have the build tag "clients". make test-clients runs them with few records,
// and make test-kgo franz-go's with as many as its authors send. docs/kafka.md says what
// came of it.
//
// librdkafka's is built by make, and each of its tests is a process: TestLibrdkafka. Some
// may not run whole, and some have to skip themselves, as they do with Apache Kafka:
// librdkafka_excluded.txt says which. make test-clients runs a third, and make
// test-librdkafka all of them.
//
// SUITES_BINARY names a server to test instead of one that is built.
package suites
