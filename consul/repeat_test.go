package consul

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"sluice/test/verify"
)

// An agent cuts the connection of a blocking query, loses its state and answers again at once.
// The index of before is not sent again, since the agent would not answer for long: also not by
// net/http, which sends a GET again if the cut connection has carried another one.
func TestCutBlockingQueryIsNotRepeatedWithItsIndex(t *testing.T) {
	for name, cut := range map[string]func(net.Conn){
		"closed": func(c net.Conn) { _ = c.Close() },
		"reset": func(c net.Conn) {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var first string // client's address of the connection that is cut
			var indexes []string
			repeated, known := make(chan struct{}, 10), make(chan string, 10)
			ended, end := context.WithCancel(context.Background())
			client := clientOf(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v1/status/leader" {
					fmt.Fprint(w, `"127.0.0.1:8300"`)
					return
				}
				mu.Lock()
				index := r.URL.Query().Get("index")
				indexes = append(indexes, index)
				n := len(indexes)
				if n == 1 {
					first = r.RemoteAddr
				} else if n == 2 && r.RemoteAddr != first {
					t.Errorf("the second query is on another connection")
				}
				mu.Unlock()
				w.Header().Set("X-Consul-KnownLeader", "true")
				switch {
				case n == 1:
					w.Header().Set("X-Consul-Index", "700")
					fmt.Fprint(w, `["before"]`)
				case n == 2:
					conn, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					cut(conn)
				case index == "700":
					repeated <- struct{}{}
					<-ended.Done()
				case index == "":
					w.Header().Set("X-Consul-Index", "3")
					fmt.Fprint(w, `["after"]`)
				default:
					<-ended.Done()
				}
			})
			var running sync.WaitGroup
			running.Go(func() {
				_ = client.Follow(ended, FollowOptions{ // ends with ended
					Query: Query{Path: "health/service/star"},
					Wait:  10 * time.Minute,
					Read: func(_ Answer, body []byte) error {
						known <- string(body)
						return nil
					},
					Ended: func(error) {},
				})
			})
			defer running.Wait()
			defer end()

			for _, want := range []string{`["before"]`, `["after"]`} {
				select {
				case got := <-known:
					verify.Equal(t, got, want, "got")
				case <-repeated:
					t.Fatal("the query was sent again with its index")
				}
			}
			mu.Lock()
			defer mu.Unlock()
			verify.That(t, len(indexes) >= 3 && indexes[0] == "" && indexes[1] == "700" && indexes[2] == "", "indexes %q, want none, 700 and none", indexes)
		})
	}
}
