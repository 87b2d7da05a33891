// Package locality tells the addresses of this machine from those of others, and
// says to which of them requests may go.
//
// Whoever registers an instance chooses the address that sluice connects to, with
// the rights of sluice's own machine: 127.0.0.1:8081 would publish the admin API,
// 127.0.0.1:6379 a database that listens for this machine only, 169.254.169.254
// what a cloud tells its machines. So
//
//   - no request goes to a listener of this sluice, whoever names it;
//   - a loopback, link-local or unspecified address is one that each machine has
//     for itself. In a registry it is that of the machine that registered it, and
//     is used only if that is this machine, or if the operator says so.
//
// The rule is [Machine.MayConnect]. It is about addresses, so where a name is given
// it has to be asked once that is resolved: when a connection is opened.
package locality
