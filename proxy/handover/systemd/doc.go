// Package systemd tells systemd what this process does, and takes the sockets that systemd
// has opened for it. Without systemd nothing is sent, and there are no sockets.
package systemd
