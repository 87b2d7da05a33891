// Package consultest runs a real Consul for tests and examples, on loopback and its own
// ports.
//
//	agent := consultest.Start(t, consultest.Options{})
//	agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "star", Port: 8080})
//
// [Binary] finds the program: SLUICE_CONSUL, else consul on PATH, else it builds the
// version that the nested module in the directory consul pins, once per user and
// version (see package pinned), which takes some minutes.
//
// Tests that neither stop their agent nor need an empty one share one: see [Shared].
//
// An agent ends with its test, and on Linux also when the test binary dies. Its ports
// are reserved until then, so several test binaries can run at the same time: see
// ports.go.
package consultest
