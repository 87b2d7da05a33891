//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// What the workload with many pools configures.
const (
	manyPools        = 1000
	peersPerPool     = 10
	changesPerSecond = 100
)

// runPools compares each sluice with itself: one pool that stays as it is, and
// a thousand of them of which a hundred change every second. The load goes to
// one pool in both cases, which changes like the others do.
func (b *bench) runPools(ctx context.Context, w workload) (result, error) {
	r := result{Workload: w.name, About: w.about, work: w}
	var all []*running
	registries := make(map[*running]*registry)
	defer func() {
		for _, p := range all {
			p.process.stop()
			registries[p].close()
		}
	}()
	for _, c := range b.contenders {
		if c.binary == "" {
			continue // the others do not follow Consul by themselves
		}
		for _, n := range []int{1, manyPools} {
			p, registry, err := b.startPools(ctx, c, n)
			if err != nil {
				return r, err
			}
			all = append(all, p)
			registries[p] = registry
			r.Series = append(r.Series, series{Proxy: p.name})
			if n == 1 {
				r.baselines = append(r.baselines, p.name)
			} else {
				p.meanwhile = func(ctx context.Context) { registry.churn(ctx, changesPerSecond) }
			}
		}
	}
	if len(all) == 0 {
		return r, errors.New("this workload is for sluice alone, which does not take part")
	}
	return r, b.rounds(ctx, w, &r, all, func(p *running) (round, error) {
		return b.measure(ctx, w, p)
	})
}

// startPools starts c with n services and waits until it knows all of them.
func (b *bench) startPools(ctx context.Context, c contender, n int) (*running, *registry, error) {
	registry, err := newRegistry(n, b.wide)
	if err != nil {
		return nil, nil, err
	}
	pools := contender{name: c.name + "-" + strconv.Itoa(n), binary: c.binary}
	pools.command = func(s settings) ([]string, error) {
		s.Consul, s.Services = registry.address, registry.names
		path, err := s.render("pools.yaml")
		return []string{c.binary, "run", "--config", path}, err
	}
	p, err := b.start(ctx, pools, workload{})
	if err != nil {
		registry.close()
		return nil, nil, err
	}
	if err := p.waitReady(ctx); err != nil {
		p.process.stop()
		registry.close()
		return nil, nil, err
	}
	return p, registry, nil
}

// waitReady waits until sluice has the first set of every service.
func (p *running) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.settings.Admin+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, ctx.Err(), p.process.output)
		}
	}
}

// wideAddresses returns one loopback address for each peer of a pool, all with
// the port of address.
func wideAddresses(address string) ([]string, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var all []string
	for i := range peersPerPool {
		all = append(all, net.JoinHostPort("127.0.0."+strconv.Itoa(i+1), port))
	}
	return all, nil
}
