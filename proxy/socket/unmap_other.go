//go:build !linux

package socket

func unmapProgram() {}
