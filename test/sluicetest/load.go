package sluicetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Load sends requests at a constant rate, and counts the responses. Its methods may be called
// concurrently.
type Load struct {
	url    string
	client *http.Client
	stop   func()

	mu    sync.Mutex // guards count
	count Count
}

// patience is the timeout of a request, far above its usual duration.
const patience = 2 * time.Minute

// Count contains the counters of a load.
type Count struct {
	Requests int
	Unsent   int                  // not sent, because the requests of one second were in flight
	Failed   int                  // without a response, or with another status than 200
	Refused  map[string]int       // of Failed, the answers by the reason that sluice gives
	ByApp    map[string]int       // responses by name of the application
	LastSent map[string]time.Time // when the last answered request was sent
	Failures []string             // the first ones
}

// Since returns the difference of c and before.
func (c Count) Since(before Count) Count {
	d := Count{Requests: c.Requests - before.Requests, Unsent: c.Unsent - before.Unsent, Failed: c.Failed - before.Failed, LastSent: c.LastSent}
	d.Refused, d.ByApp = more(c.Refused, before.Refused), more(c.ByApp, before.ByApp)
	d.Failures = c.Failures[min(len(before.Failures), len(c.Failures)):]
	return d
}

// more returns by how much the numbers of a are above those of b.
func more(a, b map[string]int) map[string]int {
	difference := make(map[string]int)
	for key, n := range a {
		if n > b[key] {
			difference[key] = n - b[key]
		}
	}
	return difference
}

// StartLoad sends perSecond requests per second to url until Stop, also if earlier ones have not
// ended, but with at most the requests of one second in flight. The name of the application is
// the third word of a response such as "Hello from star-9001".
func StartLoad(url string, perSecond int) *Load {
	l := &Load{
		url: url,
		client: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 16},
			Timeout:   patience,
		},
		count: Count{Refused: map[string]int{}, ByApp: map[string]int{}, LastSent: map[string]time.Time{}},
	}
	l.stop = Pace(time.Second/time.Duration(perSecond), perSecond, l.one, l.noteUnsent)
	return l
}

// Pace begins a call of send every so often until stop, which waits for the calls in progress. If
// most are in progress, it calls unsent.
func Pace(every time.Duration, most int, send, unsent func()) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	places := make(chan struct{}, most) // one element per call in progress
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			select {
			case places <- struct{}{}:
				running.Go(func() {
					send()
					<-places
				})
			default:
				unsent()
			}
		}
	})
	return sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
}

// one sends one request. Stop waits for it.
func (l *Load) one() {
	sent := time.Now()
	app, err := l.ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Requests++
	if err == nil {
		l.count.ByApp[app]++
		if sent.After(l.count.LastSent[app]) {
			l.count.LastSent[app] = sent
		}
		return
	}
	l.count.Failed++
	if refused := (*refusedError)(nil); errors.As(err, &refused) {
		l.count.Refused[refused.Header.Get("X-Sluice-Reason")]++
	}
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
	answer, err := Ask(context.Background(), l.client, http.MethodGet, l.url)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", &refusedError{answer}
	}
	words := strings.Fields(answer.Text)
	if len(words) < 3 {
		return "", fmt.Errorf("unexpected answer %q", answer.Text)
	}
	return strings.TrimSuffix(words[2], ","), nil
}

// refusedError is an answer with another status than 200.
type refusedError struct{ Answer }

func (e *refusedError) Error() string { return fmt.Sprintf("%v: %s", e.Answer, e.Text) }

// Count returns the present counters.
func (l *Load) Count() Count {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.count
	c.Refused, c.ByApp, c.LastSent = maps.Clone(c.Refused), maps.Clone(c.ByApp), maps.Clone(c.LastSent)
	return c
}

// Stop ends the load, and waits for the requests in flight.
func (l *Load) Stop() {
	l.stop()
	l.client.CloseIdleConnections()
}
