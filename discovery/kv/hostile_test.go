package kv

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/test/discoverytest"
	"sluice/test/hostile"
	"sluice/test/verify"
)

// oneKey is a Consul with the key star.
type oneKey struct {
	*discoverytest.KV
	say   atomic.Pointer[http.HandlerFunc] // nil: it behaves
	asked atomic.Int64                     // queries of keys
}

func newOneKey() *oneKey { return &oneKey{KV: discoverytest.NewKV()} }

func (k *oneKey) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/v1/kv/") {
		k.asked.Add(1)
		if say := k.say.Load(); say != nil {
			(*say)(w, r)
			return
		}
	}
	k.KV.ServeHTTP(w, r)
}

// instances makes those that words stand for the value.
func (k *oneKey) instances(words string) {
	var lines strings.Builder
	for _, word := range strings.Fields(words) {
		fmt.Fprintf(&lines, "10.0.0.1:%d\n", hostile.Port(word))
	}
	k.Put("star", lines.String())
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
		client := verify.Result(consul.New(consul.Options{
			Addresses: []string{"http://agent"}, Token: "secret", Log: log, Dial: pipe.DialContext,
		})).Must(t)
		return hostile.Registry[http.HandlerFunc]{
			Source: NewSource("star", Options{Key: "star", Wait: 30 * time.Second}, client, log),
			Good: func(words string) {
				key.say.Store(nil)
				key.instances(words)
			},
			Say: func(say http.HandlerFunc) {
				key.say.Store(&say)
				key.instances("a") // ends the query that blocks
			},
			Close: func() { client.Close(); pipe.Close() },
		}
	}, cases)
}
