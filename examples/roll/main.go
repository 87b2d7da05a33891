// Command roll shows `sluice roll` with a real Consul on this machine: a new version of an app,
// instance by instance. It needs only Go, and ends by itself after about a minute:
//
//	go run ./examples/roll
//
// While 250 requests a second go on, version 2 replaces version 1, on other ports. Then version 3
// comes, which does not become healthy: the roll ends with the first instance, and the others go on
// with version 2. The instances are part of this program; Consul and sluice are processes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"sluice/test/sluicetest"
	"sluice/test/stage"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "deploy" {
		deploy(os.Args[2])
		return
	}
	stage.Run("roll", show)
}

const perSecond = 250

// configuration is sluice's, with Consul's address.
const configuration = `consul: { addresses: [%q] }
listeners: [{ name: web, address: "127.0.0.1:0" }]
services: { star: { consul: {} } }
routes: [{ service: star }]
`

// deploy is the command that runs for each instance: it asks the program that has the instances.
func deploy(url string) {
	answer, err := http.Post(url, "", nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer answer.Body.Close()
	io.Copy(os.Stdout, answer.Body)
	if answer.StatusCode != http.StatusOK {
		os.Exit(1)
	}
}

// show shows a release that succeeds, and one that does not.
func show(ctx context.Context, on *stage.Stage) error {
	a := &app{Stage: on, version: "v1"}
	on.Line("Building sluice, and starting Consul, three instances of version 1 and sluice.")
	if err := a.start(ctx); err != nil {
		return err
	}
	on.Line("%d requests a second go through %s all the while.\n", perSecond, on.URL())
	load := on.StartLoad("", perSecond)

	output, err := a.roll(ctx, "v2")
	on.Line("%s\n", output)
	if err != nil {
		return err
	}
	output, err = a.roll(ctx, "v3")
	on.Line("%s\n", output)
	if err == nil {
		return errors.New("the roll of version 3 has not failed")
	}
	if err := a.awaitVersion2(ctx, load); err != nil {
		return err
	}
	all := load.Count()
	on.Line("%d requests in all, %d failed; version 2 answers", all.Requests, all.Failed)
	if all.Failed > 0 {
		return fmt.Errorf("requests failed:\n%s", strings.Join(all.Failures, "\n"))
	}
	return nil
}

func (a *app) start(ctx context.Context) error {
	if err := a.StartConsul(ctx); err != nil {
		return err
	}
	a.deployments = httptest.NewServer(http.HandlerFunc(a.replace))
	a.End(func() error { a.deployments.Close(); return nil })
	for n := range instances {
		if err := a.startInstance(n); err != nil {
			return err
		}
	}
	if err := a.Serve(ctx, fmt.Sprintf(configuration, a.Consul.URL())); err != nil {
		return err
	}
	return a.AwaitUp(ctx, instances)
}

// roll replaces the instances by those of a version, and returns what sluice says.
func (a *app) roll(ctx context.Context, version string) (output string, err error) {
	a.setVersion(version)
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	return a.Command(ctx, a.File("sluice"),
		[]string{"--admin", strings.TrimPrefix(a.AdminURL(), "http://"), "--consul", a.Consul.URL(), "--", program, "deploy", a.deployments.URL + "/{id}"},
		"roll", "--service", "star", "--settle", "2s", "--judge", "3s", "--return-timeout", "15s")
}

// awaitVersion2 waits until version 2 answers requests, and no other version does.
func (a *app) awaitVersion2(ctx context.Context, load *sluicetest.Load) error {
	before := load.Count()
	return a.Await(ctx, sluicetest.Patience, "answers of version 2", func(context.Context) (bool, error) {
		now := load.Count().Since(before)
		for name := range now.ByApp {
			if !strings.HasPrefix(name, "v2-") {
				return false, fmt.Errorf("%s has answered", name)
			}
		}
		return now.Requests >= perSecond, nil
	})
}
