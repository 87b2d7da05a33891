package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"

	"sluice/consultest"
	"sluice/registration"
)

// A process that takes over goes on with the registration of the one before,
// which is listed as passing all the time; and the last one takes it away.
func TestRegistrationOutlivesAnUpgrade(t *testing.T) {
	program := releaseProgram(t)
	agent := consultest.Start(t, consultest.Options{})
	origin := httptest.NewServer(http.NotFoundHandler())
	defer origin.Close()
	dir := t.TempDir()
	address, admin := freeAddress(t), freeAddress(t)
	configuration, pidFile, logFile := filepath.Join(dir, "sluice.yaml"), filepath.Join(dir, "pid"), filepath.Join(dir, "log")
	text := fmt.Sprintf("listeners: [{ name: web, address: %q }]\nadmin: { address: %q }\naccess_log: { path: \"off\" }\nconsul: { addresses: [%q], register: { check: { interval: 1s, timeout: 1m } } }\nservices: { star: { peers: [%q] } }\nroutes: [{ service: star }]\n",
		address, admin, agent.URL(), strings.TrimPrefix(origin.URL, "http://"))
	if err := os.WriteFile(configuration, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	defer func() {
		if t.Failed() {
			text, _ := os.ReadFile(logFile)
			t.Logf("log:\n%s", text)
		}
	}()
	command := exec.Command(program, "run", "--config", configuration, "--pid-file", pidFile)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	first := awaitPID(t, pidFile, 0)
	pid := first
	defer func() { syscall.Kill(pid, syscall.SIGTERM) }()

	entries := func() []*consulapi.ServiceEntry {
		list, _, err := agent.Client().Health().Service("sluice", "", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	await := func(what string, condition func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain until %s", what)
			}
		}
	}
	await("it is registered", func() bool { return len(entries()) == 1 })
	before := entries()[0].Service

	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	pid = awaitPID(t, pidFile, first)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		command.Wait()
	}()
	await("the new process has taken over", func() bool {
		list := entries()
		if len(list) != 1 || list[0].Checks.AggregatedStatus() != consulapi.HealthPassing {
			t.Fatalf("during the upgrade: %d entries", len(list))
		}
		text, _ := os.ReadFile(logFile)
		return strings.Count(string(text), `"message":"registered in Consul"`) == 2
	})
	<-ended
	list := entries()
	if len(list) != 1 || list[0].Service.ID != before.ID || list[0].Service.CreateIndex != before.CreateIndex || list[0].Checks.AggregatedStatus() != consulapi.HealthPassing ||
		list[0].Service.Meta[registration.MetaReplica] != before.Meta[registration.MetaReplica] {
		t.Errorf("after the upgrade %+v, before %+v", list, before)
	}

	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, pid, command, first)
	await("it is not listed any more", func() bool { return len(entries()) == 0 })
}
