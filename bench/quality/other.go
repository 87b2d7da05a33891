//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench/quality: needs Linux: its processes must end when it is killed")
	os.Exit(1)
}
