// Package certificates reads certificates in PEM format from files and from the keys of a
// key-value store, again and again while the program runs: short-lived certificates are
// renewed. What cannot be used never replaces what was read before.
package certificates
