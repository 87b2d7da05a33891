package kv

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/test/discoverytest"
	"sluice/test/hostile"
	"sluice/test/verify"
)

// oneKey is a Consul with one key, whose queries block as Consul's do.
type oneKey struct {
	mu sync.Mutex
	// mu guards the fields below.
	index   uint64
	value   *string          // nil: there is no key
	say     http.HandlerFunc // nil: it behaves
	changed chan struct{}
	asked   int // queries of the key since the last change
}

func newOneKey() *oneKey { return &oneKey{index: 10, changed: make(chan struct{})} }

func (k *oneKey) set(value *string, say http.HandlerFunc) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.index, k.value, k.say, k.asked = k.index+1, value, say, 0
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *oneKey) queries() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}

func (k *oneKey) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v1/kv/") {
		_, _ = w.Write([]byte(`"10.0.0.1:8300"`)) // the leader
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
	if seen, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64); seen == k.index && k.say == nil {
		changed := k.changed
		k.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(wait):
		case <-r.Context().Done():
		}
		k.mu.Lock()
	}
	if say := k.say; say != nil {
		k.mu.Unlock()
		defer k.mu.Lock()
		say(w, r)
		return
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(k.index, 10))
	w.Header().Set("X-Consul-KnownLeader", "true")
	if k.value == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = fmt.Fprintf(w, `[{"Key":"star","Value":%q}]`, base64.StdEncoding.EncodeToString([]byte(*k.value)))
}

// instances returns the value with the instances that words stand for.
func instances(words string) *string {
	var lines strings.Builder
	for _, word := range strings.Fields(words) {
		fmt.Fprintf(&lines, "10.0.0.1:%d\n", hostile.Port(word))
	}
	return new(lines.String())
}

// Whatever is in a key, or poses as Consul, the last good set stays in use, and the state tells
// why.
func TestHostileValues(t *testing.T) {
	t.Parallel()
	cases := hostile.ConsulAnswers()
	for _, value := range hostile.Values() {
		body := fmt.Sprintf(`[{"Key":"star","Value":%q}]`, base64.StdEncoding.EncodeToString([]byte(value.Answer)))
		cases = append(cases, hostile.Case[http.HandlerFunc]{Name: value.Name, Answer: hostile.AsConsul(body), Reason: value.Reason, Set: value.Set, Large: value.Large})
	}
	for name, body := range map[string]string{
		"a value that is not base64": `[{"Key":"star","Value":"%%%"}]`,
		"a value that is an object":  `[{"Key":"star","Value":{}}]`,
		"a key that is a number":     `[{"Key":1}]`,
	} {
		cases = append(cases, hostile.Case[http.HandlerFunc]{Name: name, Answer: hostile.AsConsul(body), Reason: "not a list of keys"})
	}
	for _, key := range []string{"", "s", "stars", "elsewhere"} {
		body := fmt.Sprintf(`[{"Key":%q,"Value":"MTAuMC4wLjE6ODA="}]`, key)
		cases = append(cases, hostile.Case[http.HandlerFunc]{Name: "the key " + key, Answer: hostile.AsConsul(body), Reason: "was not asked for"})
	}
	hostile.Test(t, func(log zerolog.Logger) hostile.Registry[http.HandlerFunc] {
		key := newOneKey()
		pipe := discoverytest.ServePipe(key)
		client, err := consul.New(consul.Options{Addresses: []string{"http://agent"}, Token: "secret", Log: log, Dial: pipe.DialContext})
		verify.NoError(t, err)
		return hostile.Registry[http.HandlerFunc]{
			Source: NewSource("star", Options{Key: "star", Wait: 30 * time.Second}, client, log),
			Good:   func(words string) { key.set(instances(words), nil) },
			Say:    func(say http.HandlerFunc) { key.set(nil, say) },
			Close:  func() { client.Close(); pipe.Close() },
		}
	}, cases)
}
