package consultest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sluice/test/verify"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

func register(t *testing.T, a *Agent, id string) {
	t.Helper()
	err := a.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "star", Address: "127.0.0.1", Port: 8080})
	verify.Require(t, err == nil, "register %s: %v", id, err)
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
	verify.NoError(t, a.Pause())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, _, err := client.Health().Service("star", "", false, (&api.QueryOptions{}).WithContext(ctx))
	verify.That(t, err != nil, "a paused agent answers")
	verify.NoError(t, a.Resume())
	awaitInstances(t, a, 1)

	verify.NoError(t, a.Restart(t.Context()))
	awaitInstances(t, a, 0)
}

func TestServerKeepsItsDataUntilWiped(t *testing.T) {
	t.Parallel()
	a := Start(t, Options{Mode: Server, Node: "one"})
	register(t, a, "star-1")
	awaitInstances(t, a, 1)
	verify.NoError(t, a.Kill())
	verify.NoError(t, a.Launch(t.Context()))
	awaitInstances(t, a, 1)
	err := a.Wipe()
	verify.That(t, err != nil, "Wipe of a running agent: no error")
	verify.NoError(t, a.Stop())
	verify.NoError(t, a.Wipe())
	verify.NoError(t, a.Launch(t.Context()))
	awaitInstances(t, a, 0)
}

func TestClientAgentJoinsAServer(t *testing.T) {
	t.Parallel()
	server := Start(t, Options{Node: "server"})
	client := Start(t, Options{Mode: Client, Node: "client", Join: []string{server.SerfAddress()}})
	register(t, client, "star-1")
	awaitInstances(t, server, 1)
	verify.NoError(t, client.Stop())
	verify.NoError(t, client.Launch(t.Context()))
	awaitInstances(t, client, 1)
}

func TestLaunchWaitsForATakenPort(t *testing.T) {
	t.Parallel()
	a := Start(t, Options{Mode: Server, NoWait: true})
	verify.NoError(t, a.Stop())
	taken := verify.Result(net.Listen("tcp4", a.DNSAddress())).Must(t)
	defer time.AfterFunc(time.Second, func() { taken.Close() }).Stop()
	verify.NoError(t, a.Launch(t.Context()))
	verify.Succeeds(t, a.WaitReady(t.Context()))
}

// Consul gives its DNS server a second to start.
func TestAnAgentThatAMachineIsTooBusyForIsStartedAgain(t *testing.T) {
	ctx, cancel := beforeDeadline(t)
	defer cancel()
	binary := verify.Result(Binary(ctx, nil)).Must(t)
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nmkdir '%s/tried' 2>/dev/null && { echo 'agent: timeout starting DNS servers'; exit 1; }\nexec '%s' \"$@\"\n", dir, binary)
	busy := filepath.Join(dir, "consul")
	verify.NoError(t, os.WriteFile(busy, []byte(script), 0o700))
	t.Setenv(EnvBinary, busy)
	a := Start(t, Options{})
	log := a.LogTail(1000)
	verify.That(t, strings.Contains(log, "timeout starting DNS servers"), "log:\n%s", log)
}

func TestAgentThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	ctx, cancel := beforeDeadline(t)
	defer cancel()
	_, err := StartAgent(ctx, Options{Config: map[string]any{"no_such_key": true}})
	verify.That(t, err != nil && strings.Contains(err.Error(), "no_such_key"), "error %v, want one that names the key", err)
}
