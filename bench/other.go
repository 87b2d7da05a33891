//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: needs Linux: it pins processes to cores and reads CPU times from the kernel")
	os.Exit(1)
}
