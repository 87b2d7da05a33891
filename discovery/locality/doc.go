// Package locality decides which addresses requests may go to.
//
// A registry chooses the address that sluice connects to, with the access
// of sluice's machine: 127.0.0.1:8081 would publish the admin API, 127.0.0.1:6379 a
// local database, 169.254.169.254 a cloud's metadata. So, for every source of instances,
//
//   - no request goes to a listener of this sluice;
//   - no request goes to a link-local address, or one of a cloud's metadata;
//   - a loopback or unspecified address in a registry belongs to the machine
//     that registered it. It is used only if that is known to be this machine, or if the operator
//     allows it.
//
// The rule is [Machine.MayConnect]. It needs resolved addresses: it is applied when a
// connection is opened.
package locality
