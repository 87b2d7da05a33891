// Package registration registers this sluice as a service in Consul, so that
// its clients find it as they find any other service, and keeps it registered.
//
// A [Registrar] looks at the agent in use every ten seconds, and at once when
// another agent is used, one answers again, or the token changes. What is missing
// or different there is registered again. What was registered with other agents
// is taken away from them as soon as they can be reached, after the one in use has
// it: so a service is listed once, and never not at all.
//
// A registration carries who made it ([MetaReplica]: the machine and the address
// of the admin API). By that a process knows what is its own, also what a process
// before it has left: one that crashed, one that it replaces, or one that had
// another id.
//
// Data flows one way: the registrar is told what to register and asked how that
// fares; it changes nothing else, and no request waits for it.
package registration
