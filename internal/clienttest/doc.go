// Package clienttest runs the programs of examples/, which are written with
// Kafka's clients, against the real server, and checks what each of them saw.
//
// A program prints one JSON object for each thing that it saw. The test compares
// them with what it reads itself, and with what it asked the program to do. Each
// cell of docs/kafka.md's table of clients is such a check. A check is only worth
// something if it can fail: every one is run once more with a server that gives
// its request a well-formed answer without content, in two ways (see blank), and
// has to turn red.
//
// The order examples are processes that talk to each other through consumer groups:
// see testOrders. The native client's needs Go alone.
//
// Kafka's own tools, the main classes behind the scripts in its bin folder, are run
// as they are, and what they print is compared line by line: TestKafkaTools. They are
// in CLIENTS_KAFKA, where make kafka-jars has put them.
//
// The tests that need the clients have the build tag "clients"; make test-clients
// runs them, and says what has to be installed. Without the tag only what needs
// Go alone is tested.
//
// CLIENTS_BINARY names a server to test instead of one that is built, and
// CLIENTS_ADDR one that runs already, of any make: the programs and the checks
// were tried with Apache Kafka. Of the order examples each wants a fresh one.
package clienttest
