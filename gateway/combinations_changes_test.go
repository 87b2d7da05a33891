package gateway

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"sluice/observe/wake"
	"sluice/proxy/socket"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// order returns the path of an order, about what may not be in use; "" for none. Of peers it
// concerns only the last of three, so that the others can answer.
func (c *combinations) order() string {
	switch c.random.IntN(5) {
	case 0:
		return pick(c, "/api/log/debug", "/api/log/error", "/api/log/release", "/api/ready/off", "/api/ready/on")
	case 1:
		return "/api/shares/" + pick(c, web...) + pick(c, "?share=0.5", "/pause", "/resume", "/release")
	case 2:
		if c.closing {
			return "/api/services/any/maintenance/" + pick(c, "on", "on?except=127.0.0.9", "off")
		}
	case 3:
		if c.impatient || c.crashing {
			break
		}
		peers, _, _ := c.upstream("any")
		addresses := map[string][]string{"one": c.servers.plain, "any": peers, "streams": c.servers.streams, "told": c.servers.toldStreams}
		service := pick(c, "one", "any", "streams", "told")
		return "/api/peers/" + service + "/" + addresses[service][2] + pick(c, "/drain", "/enable", "/weight?weight=5", "/weight/release")
	}
	return ""
}

// disturb does something besides a reload and an upgrade that no client notices: an order, a
// change, a loss or a return of what Consul has, another certificate, a reload and an upgrade that
// fail, a rollback, a look.
func (c *combinedRun) disturb(g *generation) {
	if order := c.order(); order != "" {
		switch status := g.command(order); status {
		case http.StatusOK, http.StatusNotFound:
		case http.StatusConflict: // there may also be a former peer with the same address, which drains
			verify.That(c.t, strings.HasPrefix(order, "/api/shares/") || strings.HasPrefix(order, "/api/peers/"), "seed %d: %s: status %d", c.seed, order, status)
		default:
			c.t.Errorf("seed %d: %s: status %d", c.seed, order, status)
		}
	}
	switch c.random.IntN(9) {
	case 0, 1:
		if c.healthy {
			c.register()
		}
	case 2, 3:
		if c.healthy { // what it has is known, so that a new process has it
			g.await("all services have a set", func() bool { _, all := g.known(); return all })
			c.consul.Break(c.fault())
		} else {
			c.consul.Heal()
		}
		c.healthy = !c.healthy
	case 4:
		c.certify()
	case 5:
		g.write("nonsense: 1\n")
		g.Reload()
		g.await("the error", func() bool { return strings.Contains(g.metrics(), "\nsluice_config_last_reload_successful 0\n") })
	case 6:
		if c.healthy { // else a service that returns could have no peers
			g.terms.change(c.allTerms, func() terms {
				status := g.command(fmt.Sprintf("/api/config/rollback?number=%d", 1+c.random.IntN(len(c.texts)))) // the history may not have it
				verify.That(c.t, status < http.StatusInternalServerError, "seed %d: rollback: status %d", c.seed, status)
				return termsOf(g.effective.Load())
			})
		}
	case 7:
		path := pick(c.combinations, "/api/services", "/api/peers", "/api/config", "/api/config/history", "/metrics")
		verify.Equal(c.t, g.statusOf(http.MethodGet, g.url("admin")+path, ""), http.StatusOK, "seed %d: %s", c.seed, path)
	case 8: // the new process lacks peers
		c.lacking = true
		text, _ := c.text()
		c.lacking = false
		g.succeed(text, nil, 50*time.Millisecond).fails()
		verify.That(c.t, !wake.Closed(g.ended), "seed %d: the old process has ended too", c.seed)
	}
}

// fault returns how Consul fails. It loses its instances only if nothing ejects them: then all of
// them are used.
func (c *combinations) fault() discoverytest.Fault {
	if c.lost = (c.impatient || c.crashing) && c.one(2); c.lost {
		return pick(c, discoverytest.Fault{Empty: true}, discoverytest.Fault{Empty: true, Index: "2"})
	}
	return pick(c, []discoverytest.Fault{{Drop: true}, {Pause: true}, {Status: http.StatusInternalServerError}, {Empty: true, NoLeader: true}, {Empty: true, Filtered: true}}...)
}

// known returns the names of the services with a set from Consul, and whether no set is awaited.
func (g *generation) known() (names []string, all bool) {
	all = true
	for name, state := range g.services.discovery.States() {
		if !state.Known {
			all = false
		} else if strings.HasPrefix(state.Source, "consul") {
			names = append(names, name)
		}
	}
	return names, all
}

// reload replaces the configuration of a generation by the newest one. Judges and documents make
// revisions too.
func (c *combinedRun) reload(g *generation, text string) {
	g.write(text)
	g.Reload()
	g.await("the configuration is in use", func() bool {
		now := g.history.Current().Config
		return now != nil && now.Shutdown.Grace == graceOf(len(c.texts)-1)
	})
}

// apart listens for a gateway at a unix socket that no other one has, since it gets none of the one
// before, or where HTTP/3 can be.
func (s *combinedServers) apart(name, network, address string) (net.Listener, error) {
	switch {
	case network == "unix":
		address = filepath.Join(s.socketDir, fmt.Sprint("listener", s.socketsMade.Add(1)))
	case name == "secure" || name == "certified":
		return listenForHTTP3()
	}
	return socket.Listen(network, address)
}
