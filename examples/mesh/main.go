// Command mesh shows sluice in the service mesh of a real Consul on this machine. It needs only Go,
// and ends by itself after about a minute:
//
//	go run ./examples/mesh
//
// Two services have Consul's built-in proxy as a sidecar, and one is native: it ends the TLS of the
// mesh itself. While 100 requests a second go on to each, a splitter divides one of them, an intention
// denies another one, and Consul gets a new certificate authority. The applications are parts of this
// program; Consul, the sidecars and sluice are processes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/sluicetest"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "\nmesh:", err)
		os.Exit(1)
	}
}

const (
	perSecond = 100
	enough    = 500 // requests that show how a splitter divides them
)

// services are the services of the mesh, each at the path of its name.
var services = []string{"web", "shop", "native"}

// configuration is sluice's, with Consul's address. Nothing in it is about splitters, intentions or
// certificates: these come from Consul.
const configuration = `consul: { addresses: [%q] }
services:
  web: { consul: { connect: true } }
  shop: { consul: { connect: true } }
  native: { consul: { connect: true } }
routes:
- { path: /web, service: web }
- { path: /shop, service: shop }
- { path: /native, service: native }
`

// stage is what runs.
type stage struct {
	out       io.Writer
	directory string
	consul    *consultest.Agent
	sluice    *sluicetest.Sluice
	apps      []*app
	loads     map[string]*sluicetest.Load // by service
	denied    string                      // the service whose requests fail, as connections to it are denied
}

// run shows the mesh, and removes everything.
func run(ctx context.Context, out io.Writer) (err error) {
	s := &stage{out: out, loads: make(map[string]*sluicetest.Load)}
	defer func() { err = errors.Join(err, s.clear()) }()
	if err := s.start(ctx); err != nil {
		return err
	}
	for _, step := range []struct {
		title string
		do    func(context.Context) (seen string, err error)
	}{
		{"two versions of web, without a splitter", s.split(0)},
		{"a splitter gives version 2 of web 10 %", s.split(10)},
		{"an intention denies sluice to connect to shop", s.deny},
		{"another one allows it", s.allow},
		{"Consul gets a new root, and sluice another certificate", s.rotate},
	} {
		before, denied := s.count(), s.denied
		seen, err := step.do(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
		requests := 0
		for service, now := range s.count() {
			c := now.Since(before[service])
			requests += c.Requests
			if c.Failed > 0 && service != denied && service != s.denied {
				return fmt.Errorf("%s: %d requests to %s failed:\n%s", step.title, c.Failed, service, strings.Join(c.Failures, "\n"))
			}
		}
		s.line("%-56s %5d requests; %s", step.title, requests, seen)
	}
	return nil
}

func (s *stage) line(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

func (s *stage) start(ctx context.Context) (err error) {
	if s.directory, err = os.MkdirTemp("", "sluice-mesh-"); err != nil {
		return err
	}
	s.line("Building sluice, and starting Consul, the services, their sidecars and sluice.")
	built := make(chan error, 1)
	go func() { built <- sluicetest.Build(ctx, s.directory, "sluice") }()
	s.consul, err = consultest.StartAgent(ctx, consultest.Options{Node: "mesh", Progress: s.out})
	if err == nil {
		err = s.startApps(ctx)
	}
	if err = errors.Join(err, <-built); err != nil {
		return err
	}
	file := filepath.Join(s.directory, "sluice.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, s.consul.URL()), 0o600); err != nil {
		return err
	}
	s.sluice, err = sluicetest.Start(ctx, sluicetest.Options{
		Program: filepath.Join(s.directory, "sluice"), Args: []string{"--config", file},
		Log: filepath.Join(s.directory, "sluice.log"), Listen: sluicetest.Any, Admin: sluicetest.Any,
	})
	if err != nil {
		return err
	}
	if err := s.sluice.AwaitUp(ctx, len(s.apps)); err != nil {
		return err
	}
	s.line("%d requests a second go to each of %s through %s all the while.\n", perSecond, strings.Join(services, ", "), s.sluice.URL())
	for _, name := range services {
		s.loads[name] = sluicetest.StartLoad(s.sluice.URL()+"/"+name, perSecond)
	}
	return nil
}

// startApps registers the services and starts what serves them: two versions of web, shop and native.
func (s *stage) startApps(ctx context.Context) error {
	for _, a := range []*app{
		{service: "web", version: "v1"}, {service: "web", version: "v2"}, {service: "shop", version: "v1"},
		{service: "native", version: "v1", native: true},
	} {
		s.apps = append(s.apps, a)
		if err := a.start(ctx, s.consul); err != nil {
			return fmt.Errorf("%s: %w", a.id(), err)
		}
	}
	return nil
}

// count returns the counters of the loads.
func (s *stage) count() map[string]sluicetest.Count {
	all := make(map[string]sluicetest.Count, len(s.loads))
	for name, load := range s.loads {
		all[name] = load.Count()
	}
	return all
}

// split gives version 2 of web a share in percent, by a resolver with subsets and a splitter; 0: both are as they are
// registered.
func (s *stage) split(percent float32) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if percent > 0 {
			if err := s.write(
				&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "web", Protocol: "http"},
				&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web", DefaultSubset: "v1", Subsets: map[string]api.ServiceResolverSubset{
					"v1": {Filter: "Service.Meta.version == v1"}, "v2": {Filter: "Service.Meta.version == v2"},
				}},
				&api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "web", Splits: []api.ServiceSplit{
					{Weight: 100 - percent, ServiceSubset: "v1"}, {Weight: percent, ServiceSubset: "v2"},
				}},
			); err != nil {
				return "", err
			}
			if err := s.awaitTargets(ctx); err != nil {
				return "", err
			}
		}
		before, now := s.loads["web"].Count(), sluicetest.Count{}
		err := s.sluice.Await(ctx, sluicetest.Patience, "more requests", func(context.Context) (bool, error) {
			now = s.loads["web"].Count().Since(before)
			return now.Requests >= enough && now.ByApp["web-v2"] > 0, nil
		})
		return fmt.Sprintf("of %d to web, %d by version 2", now.Requests, now.ByApp["web-v2"]), err
	}
}

// awaitTargets waits until version 2 of web is a target of its own.
func (s *stage) awaitTargets(ctx context.Context) error {
	return s.sluice.Await(ctx, sluicetest.Patience, "the splitter to be in use", func(ctx context.Context) (bool, error) {
		var services []struct {
			Service string `json:"service"`
		}
		err := s.sluice.Get(ctx, "/api/services", &services)
		for _, one := range services {
			if strings.HasPrefix(one.Service, "web@") {
				return true, err
			}
		}
		return false, err
	})
}

// deny denies the connections to shop, and waits until clients are told.
func (s *stage) deny(ctx context.Context) (string, error) {
	begin := time.Now()
	if err := s.intend(api.IntentionActionDeny); err != nil {
		return "", err
	}
	s.denied = "shop"
	var told string
	err := s.sluice.Await(ctx, sluicetest.Patience, "requests to be denied", func(ctx context.Context) (denied bool, err error) {
		denied, told, err = s.askShop(ctx)
		return denied, err
	})
	return fmt.Sprintf("after %s: %s", time.Since(begin).Round(time.Millisecond), told), err
}

// allow allows the connections to shop, and waits until all requests are answered again. Consul's agent would go on to
// answer the sidecar with the denial: it is made to ask its servers.
func (s *stage) allow(ctx context.Context) (string, error) {
	begin := time.Now()
	if err := s.intend(api.IntentionActionAllow); err != nil {
		return "", err
	}
	before := s.loads["shop"].Count()
	took := time.Duration(0)
	err := s.sluice.Await(ctx, sluicetest.Patience, "requests to be answered", func(ctx context.Context) (bool, error) {
		now := s.loads["shop"].Count().Since(before)
		if now.Failed > 0 { // they were on the way, or the agent does not know yet
			before, took = s.loads["shop"].Count(), time.Since(begin)
			return false, s.refreshAgent(ctx)
		}
		return now.Requests >= enough/5, nil
	})
	s.denied = ""
	if took == 0 {
		return "none was denied any more", err
	}
	return fmt.Sprintf("the last one was denied after %s", took.Round(time.Millisecond)), err
}

// refreshAgent makes Consul's agent ask its servers for the intentions of shop: its cache, from which it answers sidecars,
// no longer does so by itself after a change (hashicorp/consul issue 23368; see docs/mesh.md).
func (s *stage) refreshAgent(ctx context.Context) error {
	match := &api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{"default/default/shop"}}
	cached := (&api.QueryOptions{UseCache: true}).WithContext(ctx)
	_, known, err := s.consul.Client().Connect().IntentionMatch(match, cached)
	if err != nil {
		return err
	}
	cached.WaitIndex, cached.WaitTime = known.LastIndex, 100*time.Millisecond
	_, _, err = s.consul.Client().Connect().IntentionMatch(match, cached)
	return err
}

// intend writes the only intention of shop.
func (s *stage) intend(action api.IntentionAction) error {
	return s.write(&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "shop", Sources: []*api.SourceIntention{
		{Name: "sluice", Action: action},
	}})
}

// askShop sends a request to shop, and reports whether it was denied by an intention, and what clients are told.
func (s *stage) askShop(ctx context.Context) (denied bool, told string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.sluice.URL()+"/shop", nil)
	if err != nil {
		return false, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	denied = response.StatusCode == http.StatusForbidden && response.Header.Get("X-Sluice-Reason") == "intention"
	return denied, strings.TrimSpace(string(body)), err
}

// rotate gives Consul a new root, and waits until sluice has a certificate of it. Agents replace theirs within half a
// minute, to spread the load.
func (s *stage) rotate(ctx context.Context) (string, error) {
	begin, before := time.Now(), ""
	leaf := func(ctx context.Context) (string, error) {
		var all []struct {
			UsedBy  string    `json:"used_by"`
			Expires time.Time `json:"expires"`
			Trusted bool      `json:"trusted"`
		}
		err := s.sluice.Get(ctx, "/api/certificates", &all)
		for _, c := range all {
			if !c.Trusted && strings.Contains(c.UsedBy, "mesh") {
				return c.Expires.String(), err
			}
		}
		return "", errors.Join(err, errors.New("sluice shows no certificate of the mesh"))
	}
	before, err := leaf(ctx)
	if err != nil {
		return "", err
	}
	if err := s.newRoot(); err != nil {
		return "", err
	}
	err = s.sluice.Await(ctx, sluicetest.Patience, "another certificate", func(ctx context.Context) (bool, error) {
		now, err := leaf(ctx)
		return now != before, err
	})
	return fmt.Sprintf("after %s, 0 failed", time.Since(begin).Round(time.Second)), err
}

// clear ends everything and removes the files.
func (s *stage) clear() error {
	var errs []error
	for _, load := range s.loads {
		load.Stop()
	}
	if s.sluice != nil {
		errs = append(errs, s.sluice.Stop())
	}
	for _, a := range s.apps {
		errs = append(errs, a.stop())
	}
	if s.consul != nil {
		errs = append(errs, s.consul.Close())
	}
	if s.directory != "" {
		errs = append(errs, os.RemoveAll(s.directory))
	}
	return errors.Join(errs...)
}
