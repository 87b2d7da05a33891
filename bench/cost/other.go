//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench/cost: needs Linux: it counts system calls with strace")
	os.Exit(1)
}
