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
	places chan struct{} // taken by requests under way

	mu    sync.Mutex // guards count
	count Count
}

// patience is what the load waits for an answer: a thousand times what it takes.
const patience = 10 * time.Second

// Count is what a load has seen so far.
type Count struct {
	Requests int
	Unsent   int                  // that were not sent because a second's worth was under way
	Failed   int                  // no answer, or another one than 200
	ByApp    map[string]int       // answers by the application's name
	Asked    map[string]time.Time // when the last request was sent that it answered
	Failures []string             // the first few
}

// Since returns what came after before.
func (c Count) Since(before Count) Count {
	d := Count{Requests: c.Requests - before.Requests, Unsent: c.Unsent - before.Unsent, Failed: c.Failed - before.Failed, ByApp: map[string]int{}, Asked: c.Asked}
	for app, n := range c.ByApp {
		if n > before.ByApp[app] {
			d.ByApp[app] = n - before.ByApp[app]
		}
	}
	d.Failures = c.Failures[min(len(before.Failures), len(c.Failures)):]
	return d
}

// StartLoad sends perSecond requests a second to url, whatever earlier ones are
// doing, until Stop; but none while a second's worth is under way, which more would
// only add to. The application's name is the third word of an answer
// such as "Hello from star-9001".
func StartLoad(url string, perSecond int) *Load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{
		url:    url,
		cancel: cancel,
		client: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 16},
			Timeout:   patience,
		},
		places: make(chan struct{}, perSecond),
		count:  Count{ByApp: map[string]int{}, Asked: map[string]time.Time{}},
	}
	l.wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			select {
			case l.places <- struct{}{}:
				l.wg.Go(l.one)
			default:
				l.noteUnsent()
			}
		}
	})
	return l
}

// one sends one request; it is not cut short by Stop, which waits for it.
func (l *Load) one() {
	defer func() { <-l.places }()
	sent := time.Now()
	app, err := l.ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Requests++
	if err == nil {
		l.count.ByApp[app]++
		if sent.After(l.count.Asked[app]) {
			l.count.Asked[app] = sent
		}
		return
	}
	l.count.Failed++
	if len(l.count.Failures) < 10 {
		l.count.Failures = append(l.count.Failures, fmt.Sprintf("%s %v", time.Now().Format("15:04:05.000"), err))
	}
}

func (l *Load) noteUnsent() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Unsent++
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
	c.ByApp, c.Asked = maps.Clone(c.ByApp), maps.Clone(c.Asked)
	return c
}

// Stop ends the load and waits for the requests in flight.
func (l *Load) Stop() {
	l.cancel()
	l.wg.Wait()
	l.client.CloseIdleConnections()
}
