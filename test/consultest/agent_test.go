package consultest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

func register(t *testing.T, a *Agent, id string) {
	t.Helper()
	err := a.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "star", Address: "127.0.0.1", Port: 8080})
	if err != nil {
		t.Fatalf("register %s: %v", id, err)
	}
}

// awaitInstances waits until the catalog has want instances of star.
func awaitInstances(t *testing.T, a *Agent, want int) {
	t.Helper()
	Await(t, fmt.Sprintf("%d instances", want), func() bool {
		instances, _, err := a.Client().Health().Service("star", "", false, nil)
		return err == nil && len(instances) == want
	})
}

func TestDevAgent(t *testing.T) {
	t.Parallel()
	a := Start(t, Options{})
	register(t, a, "star-1")
	awaitInstances(t, a, 1)

	client := a.Client()
	if err := a.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, _, err := client.Health().Service("star", "", false, (&api.QueryOptions{}).WithContext(ctx)); err == nil {
		t.Error("a paused agent answers")
	}
	if err := a.Resume(); err != nil {
		t.Fatal(err)
	}
	awaitInstances(t, a, 1)

	if err := a.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitInstances(t, a, 0)
}

func TestServerKeepsItsDataUntilWiped(t *testing.T) {
	t.Parallel()
	a := Start(t, Options{Mode: Server, Node: "one"})
	register(t, a, "star-1")
	awaitInstances(t, a, 1)
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := a.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitInstances(t, a, 1)
	if err := a.Wipe(); err == nil {
		t.Error("Wipe of a running agent: no error")
	}
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := a.Wipe(); err != nil {
		t.Fatal(err)
	}
	if err := a.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitInstances(t, a, 0)
}

func TestClientAgentJoinsAServer(t *testing.T) {
	t.Parallel()
	server := Start(t, Options{Node: "server"})
	client := Start(t, Options{Mode: Client, Node: "client", Join: []string{server.SerfAddress()}})
	register(t, client, "star-1")
	awaitInstances(t, server, 1)
	if err := client.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := client.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitInstances(t, client, 1)
}

func TestLaunchWaitsForATakenPort(t *testing.T) {
	t.Parallel()
	a := Start(t, Options{Mode: Server, NoWait: true})
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp4", a.DNSAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Second, func() { taken.Close() }).Stop()
	if err := a.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitReady(t.Context()); err != nil {
		t.Error(err)
	}
}

// Consul gives its DNS server a second to start.
func TestAnAgentThatAMachineIsTooBusyForIsStartedAgain(t *testing.T) {
	ctx, cancel := beforeDeadline(t)
	defer cancel()
	binary, err := Binary(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nmkdir '%s/tried' 2>/dev/null && { echo 'agent: timeout starting DNS servers'; exit 1; }\nexec '%s' \"$@\"\n", dir, binary)
	busy := filepath.Join(dir, "consul")
	if err := os.WriteFile(busy, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv(EnvBinary, busy)
	a := Start(t, Options{})
	if log := a.LogTail(1000); !strings.Contains(log, "timeout starting DNS servers") {
		t.Errorf("log:\n%s", log)
	}
}

func TestAgentThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	ctx, cancel := beforeDeadline(t)
	defer cancel()
	_, err := StartAgent(ctx, Options{Config: map[string]any{"no_such_key": true}})
	if err == nil || !strings.Contains(err.Error(), "no_such_key") {
		t.Errorf("error %v, want one that names the key", err)
	}
}
