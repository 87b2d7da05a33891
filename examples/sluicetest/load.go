package sluicetest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Load sends requests at a steady rate and keeps count of the answers. Safe for
// concurrent use.
type Load struct {
	url    string
	client *http.Client
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex // guards count
	count Count
}

// Count is what a load has seen so far.
type Count struct {
	Requests int
	Failed   int            // no answer, or another one than 200
	ByApp    map[string]int // answers by the application's name
	Failures []string       // the first few
}

// Since returns what came after before.
func (c Count) Since(before Count) Count {
	d := Count{Requests: c.Requests - before.Requests, Failed: c.Failed - before.Failed, ByApp: map[string]int{}}
	for app, n := range c.ByApp {
		if n > before.ByApp[app] {
			d.ByApp[app] = n - before.ByApp[app]
		}
	}
	d.Failures = c.Failures[min(len(before.Failures), len(c.Failures)):]
	return d
}

// StartLoad sends perSecond requests a second to url, whatever earlier ones are
// doing, until Stop. The application's name is the third word of an answer
// such as "Hello from star-9001".
func StartLoad(url string, perSecond int) *Load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{
		url:    url,
		cancel: cancel,
		client: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 16},
			Timeout:   time.Minute, // a machine with a lot of other work is no failure
		},
		count: Count{ByApp: map[string]int{}},
	}
	l.wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				l.wg.Go(l.one)
			}
		}
	})
	return l
}

// one sends one request; it is not cut short by Stop, which waits for it.
func (l *Load) one() {
	app, err := l.ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Requests++
	if err == nil {
		l.count.ByApp[app]++
		return
	}
	l.count.Failed++
	if len(l.count.Failures) < 10 {
		l.count.Failures = append(l.count.Failures, fmt.Sprintf("%s %v", time.Now().Format("15:04:05.000"), err))
	}
}

func (l *Load) ask() (app string, err error) {
	response, err := l.client.Get(l.url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s (%s): %s", response.Status, response.Header.Get("X-Sluice-Reason"), strings.TrimSpace(string(body)))
	}
	words := strings.Fields(string(body))
	if len(words) < 3 {
		return "", fmt.Errorf("unexpected answer %q", body)
	}
	return strings.TrimSuffix(words[2], ","), nil
}

// Count returns what the load has seen so far.
func (l *Load) Count() Count {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.count
	c.ByApp = maps.Clone(c.ByApp)
	return c
}

// Stop ends the load and waits for the requests in flight.
func (l *Load) Stop() {
	l.cancel()
	l.wg.Wait()
	l.client.CloseIdleConnections()
}
