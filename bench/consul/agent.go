//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/subprocess"
)

// agent is what sluice asks: an agent of Consul, or a catalogue in memory.
type agent struct {
	client *api.Client
	pid    int
	close  func()
}

// startAgent starts the agent that o says. sluice asks it at address, and trusts certificates of
// the file ca. The caller closes the agent.
func startAgent(ctx context.Context, o options, dir string) (a agent, address, ca string, err error) {
	var tls *consultest.TLS
	if o.tls {
		if tls, err = selfSigned(dir); err != nil {
			return a, "", "", err
		}
		ca = tls.CA
	}
	if o.mode == "memory" {
		a, address, err = startMemory(tls)
		return a, address, ca, err
	}
	settings := consultest.Options{Node: "bench-agent", TLS: tls, Progress: os.Stderr}
	if o.mode == "server" {
		settings.Mode = consultest.Server
	}
	started, err := consultest.StartAgent(ctx, settings)
	if err != nil {
		return a, "", "", err
	}
	address = started.URL()
	if o.tls {
		address = "https://" + started.HTTPSAddress()
	}
	// A process that does not end is in the way of nothing.
	return agent{started.Client(), started.Process().PID(), func() { _ = started.Close() }}, address, ca, nil
}

// startMemory starts a process with a catalogue in memory.
func startMemory(tls *consultest.TLS) (a agent, address string, err error) {
	self, err := os.Executable()
	if err != nil {
		return a, "", err
	}
	args := []string{memoryCommand}
	if tls != nil {
		args = append(args, "-cert", tls.Cert, "-key", tls.Key)
	}
	output, input := io.Pipe()
	p, err := subprocess.Start(subprocess.Options{Program: self, Args: args, Output: input})
	if err != nil {
		return a, "", err
	}
	lines := bufio.NewScanner(output)
	if !lines.Scan() {
		return a, "", errors.New("the catalogue in memory ended")
	}
	plain, encrypted, _ := strings.Cut(lines.Text(), " ")
	go func() {
		for lines.Scan() {
			fmt.Fprintln(os.Stderr, lines.Text())
		}
	}()
	address = "http://" + plain
	if tls != nil {
		address = "https://" + encrypted
	}
	client, err := api.NewClient(&api.Config{Address: "http://" + plain})
	return agent{client, p.PID(), func() {
		_ = p.Kill() // it has nothing to keep
		input.Close()
	}}, address, err
}
