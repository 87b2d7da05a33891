// Command mesh shows sluice in the service mesh of a real Consul on this machine. It needs only Go,
// and ends by itself after about a minute:
//
//	go run ./examples/mesh
//
// Two services have Consul's built-in proxy as a sidecar, and one is native: it ends the TLS of the
// mesh itself. While 100 requests a second go on to each, a splitter divides one of them, an
// intention denies another one, and Consul gets a new certificate authority. The applications are
// parts of this program; Consul, the sidecars and sluice are processes.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/sluicetest"
	"sluice/test/stage"
)

func main() { stage.Run("mesh", show) }

const (
	perSecond = 100
	enough    = 500 // requests that show how a splitter divides them
)

// services are the services of the mesh, each at the path of its name.
var services = []string{"web", "shop", "native"}

// configuration is sluice's, with Consul's address. Nothing in it is about splitters, intentions or
// certificates: these come from Consul. A handshake takes as long as Consul's answer about the
// intentions, on a busy machine more than a second.
const configuration = `consul: { addresses: [%q] }
listeners: [{ name: web, address: "127.0.0.1:0" }]
services:
  web: { consul: { connect: true }, timeouts: { connect: 10s } }
  shop: { consul: { connect: true }, timeouts: { connect: 10s } }
  native: { consul: { connect: true }, timeouts: { connect: 10s } }
routes:
- { path: /web, service: web }
- { path: /shop, service: shop }
- { path: /native, service: native }
`

// tour is what runs.
type tour struct {
	*stage.Stage
	loads  map[string]*sluicetest.Load // by service
	denied string                      // the service whose requests fail, as connections to it are denied
}

// show shows the mesh.
func show(ctx context.Context, on *stage.Stage) error {
	s := &tour{Stage: on, loads: make(map[string]*sluicetest.Load)}
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
		s.Line("%-56s %5d requests; %s", step.title, requests, seen)
	}
	return nil
}

func (s *tour) start(ctx context.Context) error {
	s.Line("Building sluice, and starting Consul, the services, their sidecars and sluice.")
	if err := s.StartConsul(ctx); err != nil {
		return err
	}
	for _, a := range apps {
		if err := s.startApp(ctx, a); err != nil {
			return fmt.Errorf("%s: %w", a.id(), err)
		}
	}
	if err := s.Serve(ctx, fmt.Sprintf(configuration, s.Consul.URL())); err != nil {
		return err
	}
	if err := s.AwaitUp(ctx, len(apps)); err != nil {
		return err
	}
	s.Line("%d requests a second go to each of %s through %s all the while.\n", perSecond, strings.Join(services, ", "), s.URL())
	for _, name := range services {
		s.loads[name] = s.StartLoad("/"+name, perSecond)
	}
	return nil
}

// apps are two versions of web, shop and native.
var apps = []app{
	{service: "web", version: "v1"}, {service: "web", version: "v2"}, {service: "shop", version: "v1"},
	{service: "native", version: "v1", native: true},
}

// count returns the counters of the loads.
func (s *tour) count() map[string]sluicetest.Count {
	all := make(map[string]sluicetest.Count, len(s.loads))
	for name, load := range s.loads {
		all[name] = load.Count()
	}
	return all
}

// split gives version 2 of web a share in percent, by a resolver with subsets and a splitter; 0:
// both are as they are registered.
func (s *tour) split(percent float32) func(context.Context) (string, error) {
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
		err := s.Await(ctx, sluicetest.Patience, "more requests", func(context.Context) (bool, error) {
			now = s.loads["web"].Count().Since(before)
			return now.Requests >= enough && now.ByApp["web-v2"] > 0, nil
		})
		return fmt.Sprintf("of %d to web, %d by version 2", now.Requests, now.ByApp["web-v2"]), err
	}
}

// awaitTargets waits until version 2 of web is a target of its own.
func (s *tour) awaitTargets(ctx context.Context) error {
	return s.Await(ctx, sluicetest.Patience, "the splitter to be in use", func(ctx context.Context) (bool, error) {
		var services []struct {
			Service string `json:"service"`
		}
		err := s.Get(ctx, "/api/services", &services)
		for _, one := range services {
			if strings.HasPrefix(one.Service, "web@") {
				return true, err
			}
		}
		return false, err
	})
}

// deny denies the connections to shop, and waits until clients are told.
func (s *tour) deny(ctx context.Context) (string, error) {
	begin := time.Now()
	if err := s.intend(api.IntentionActionDeny); err != nil {
		return "", err
	}
	s.denied = "shop"
	var told string
	err := s.Await(ctx, sluicetest.Patience, "requests to be denied", func(ctx context.Context) (denied bool, err error) {
		denied, told, err = s.askShop(ctx)
		return denied, err
	})
	return fmt.Sprintf("after %s: %s", time.Since(begin).Round(time.Millisecond), told), err
}

// allow allows the connections to shop, and waits until all requests are answered again. Consul's
// agent would go on to answer the sidecar with the denial: it is made to ask its servers.
func (s *tour) allow(ctx context.Context) (string, error) {
	begin := time.Now()
	if err := s.intend(api.IntentionActionAllow); err != nil {
		return "", err
	}
	before := s.loads["shop"].Count()
	took := time.Duration(0)
	err := s.Await(ctx, sluicetest.Patience, "requests to be answered", func(ctx context.Context) (bool, error) {
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

// refreshAgent makes Consul's agent ask its servers for the intentions of shop: its cache, from
// which it answers sidecars, no longer does so by itself after a change (hashicorp/consul issue
// 23368; see docs/mesh.md).
func (s *tour) refreshAgent(ctx context.Context) error {
	match := &api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{"default/default/shop"}}
	cached := (&api.QueryOptions{UseCache: true}).WithContext(ctx)
	_, known, err := s.Consul.Client().Connect().IntentionMatch(match, cached)
	if err != nil {
		return err
	}
	cached.WaitIndex, cached.WaitTime = known.LastIndex, 100*time.Millisecond
	_, _, err = s.Consul.Client().Connect().IntentionMatch(match, cached)
	return err
}

// intend writes the only intention of shop.
func (s *tour) intend(action api.IntentionAction) error {
	return s.write(&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "shop", Sources: []*api.SourceIntention{
		{Name: "sluice", Action: action},
	}})
}

// askShop sends a request to shop, and reports whether it was denied by an intention, and what
// clients are told.
func (s *tour) askShop(ctx context.Context) (denied bool, told string, err error) {
	answer, err := sluicetest.Ask(ctx, http.DefaultClient, http.MethodGet, s.URL()+"/shop")
	if err != nil {
		return false, "", err
	}
	return answer.String() == "403 intention", answer.Text, nil
}

// rotate gives Consul a new root, and waits until sluice has a certificate of it. Agents replace
// theirs within half a minute, to spread the load.
func (s *tour) rotate(ctx context.Context) (string, error) {
	begin, before := time.Now(), ""
	leaf := func(ctx context.Context) (string, error) {
		var all []struct {
			UsedBy  string    `json:"used_by"`
			Expires time.Time `json:"expires"`
			Trusted bool      `json:"trusted"`
		}
		err := s.Get(ctx, "/api/certificates", &all)
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
	err = s.Await(ctx, sluicetest.Patience, "another certificate", func(ctx context.Context) (bool, error) {
		now, err := leaf(ctx)
		return now != before, err
	})
	return fmt.Sprintf("after %s, 0 failed", time.Since(begin).Round(time.Second)), err
}
