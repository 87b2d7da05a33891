// Sluice is a dynamic upstream load balancer driven by Consul. See README.md.
package main

import (
	"os"

	"sluice/cli"
)

func main() {
	os.Exit(cli.Run(os.Args[1:], os.Stdout, os.Stderr))
}
