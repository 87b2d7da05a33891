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

// Sizes of the workload with many pools.
const (
	manyPools        = 1000
	peersPerPool     = 10
	changesPerSecond = 100
)

// runPools compares each sluice with itself: with one unchanged pool, and with a thousand
// pools of which a hundred change every second. The load goes to one pool, which changes like
// the others.
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
			continue // other proxies have no source for Consul
		}
		for _, n := range []int{1, manyPools} {
			p, registry, err := b.startPools(ctx, w, c, n)
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
		return r, errors.New("this workload is only for sluice, which is not selected")
	}
	return r, b.rounds(ctx, w, &r, all, func(p *running) (round, error) {
		return b.measure(ctx, w, p)
	})
}

// startPools starts c with n services, and waits for the first set of each.
func (b *bench) startPools(ctx context.Context, w workload, c contender, n int) (*running, *registry, error) {
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
	p, err := b.start(ctx, pools, w)
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
