//go:build linux

package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/bench/quality/scenario"
)

const (
	// patience is how long a client waits for an answer, from the intended time of sending.
	patience = 10 * time.Second
	// connections bounds the connections of a load; further requests wait for one.
	connections = 1000
)

// sample is what became of a request.
type sample struct {
	latency time.Duration // from the intended time of sending; patience for a failed one
	late    time.Duration // from the intended time of sending to the sending
	end     time.Duration // from the begin of the run
	failure failure
}

// failure says why a request has failed: answered and misled, or a status with sluice's reason, if
// it gives one.
type failure string

const (
	answered failure = ""
	broken   failure = "no whole answer"
	misled   failure = "wrong body"
)

// load sends the requests of a play at their times, also if earlier ones are not answered.
type load struct {
	play   *play
	begin  time.Time
	urls   []string // by replica
	client *http.Client
}

func newLoad(p *play, begin time.Time, addresses []string) *load {
	l := &load{play: p, begin: begin, client: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, DisableCompression: true, IdleConnTimeout: time.Hour,
	}}}
	for _, a := range addresses {
		l.urls = append(l.urls, "http://"+a)
	}
	return l
}

// run returns a sample for each request, when all have ended. If ctx ends, so do the requests.
func (l *load) run(ctx context.Context) []sample {
	defer l.client.CloseIdleConnections()
	samples := make([]sample, len(l.play.requests))
	var sent sync.WaitGroup
	for n, r := range l.play.requests {
		wait(ctx, time.Until(l.begin.Add(r.At)))
		if ctx.Err() != nil {
			break
		}
		sent.Go(func() { samples[n] = l.send(ctx, n, r) })
	}
	sent.Wait()
	return samples
}

func (l *load) send(ctx context.Context, n int, r scenario.Request) sample {
	due := l.begin.Add(r.At)
	stream := l.play.Routes[r.Route].Stream
	ctx, cancel := context.WithDeadline(ctx, due.Add(patience+stream))
	defer cancel()
	s := sample{late: time.Since(due)}
	s.failure = l.ask(ctx, n, r)
	now := time.Now()
	s.latency, s.end = now.Sub(due), now.Sub(l.begin)
	if s.failure != answered {
		s.latency = patience
	}
	return s
}

func (l *load) ask(ctx context.Context, n int, r scenario.Request) failure {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, l.urls[r.Replica]+"/"+l.play.Routes[r.Route].Name, nil)
	if err != nil {
		return broken
	}
	request.Header.Set(numberField, strconv.Itoa(n))
	response, err := l.client.Do(request)
	if err != nil {
		return broken
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	switch {
	case response.StatusCode < 200 || response.StatusCode > 299:
		return failure(strings.TrimSpace(strconv.Itoa(response.StatusCode) + " " + response.Header.Get("X-Sluice-Reason")))
	case err != nil:
		return broken
	case !bytes.HasSuffix(body, []byte(rightBody(n))):
		return misled
	}
	return answered
}
