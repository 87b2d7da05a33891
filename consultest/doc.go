// Package consultest runs the real Consul for tests and examples, on loopback
// and on ports of its own.
//
//	agent := consultest.Start(t, consultest.Options{})
//	agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "star", Port: 8080})
//
// [Binary] finds the program: the one that the environment variable
// SLUICE_CONSUL names, else consul on PATH, else it builds the version that the
// nested module in the directory consul pins, once per user and version: see
// package pinned. That takes some minutes.
//
// An agent ends with its test, and on Linux also when the test binary dies. Its
// ports are reserved for it until then, so that any number of test binaries can
// run at the same time: see ports.go.
package consultest
