// Package certificates reads certificates from files in PEM format, and reads them
// again while the program runs: short-lived certificates are renewed on disk. Files
// that cannot be used never replace those that were read before.
package certificates
