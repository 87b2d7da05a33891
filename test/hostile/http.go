package hostile

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// AsConsul returns an answer with the header of Consul's and a body.
func AsConsul(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		consulHeader(w)
		_, _ = io.WriteString(w, body)
	}
}

func consulHeader(w http.ResponseWriter) {
	w.Header().Set("X-Consul-Index", "1000")
	w.Header().Set("X-Consul-KnownLeader", "true")
}

// ConsulAnswers are the answers of what poses as Consul, to any query.
func ConsulAnswers() []Case[http.HandlerFunc] {
	return []Case[http.HandlerFunc]{
		{Name: "a text without end", Large: true, Reason: "longer than 64 MiB", Answer: endless(`[{"Node":{"Node":"`+strings.Repeat("x", 64<<10), http.StatusOK)},
		{Name: "an error without end", Reason: "500 Internal Server Error", Answer: endless(strings.Repeat("x ", 32<<10), http.StatusInternalServerError)},
		{Name: "a drip", Reason: "no answer within", Answer: func(w http.ResponseWriter, r *http.Request) {
			consulHeader(w)
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Second)
			}
		}},
		{Name: "brackets without end", Large: true, Reason: "the answer", Answer: AsConsul(strings.Repeat("[", 1<<20))},
		{Name: "objects in each other", Large: true, Reason: "the answer", Answer: AsConsul(`[` + strings.Repeat(`{"A":`, 1<<20))},
		{Name: "millions of empty objects", Large: true, Reason: "the answer", Answer: AsConsul(`[` + strings.Repeat(`{},`, 1<<20) + `{}]`)},
		{Name: "a page", Reason: "consul http", Answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "<html>Log in</html>")
		}},
		{Name: "a page with the header of Consul", Reason: "the answer", Answer: AsConsul("<html>")},
		{Name: "half an answer", Reason: "the answer", Answer: AsConsul(`[{"Key":"a","Node":{`)},
		{Name: "nothing", Reason: "the answer", Answer: AsConsul("")},
		{Name: "null", Reason: "is not a list", Answer: AsConsul("null")},
		{Name: "a number", Reason: "the answer", Answer: AsConsul("1e999999999")},
		{Name: "control characters", Reason: "the answer", Answer: AsConsul("[\x00\x1b[2J]")},
		{Name: "a negative index", Reason: `X-Consul-Index is \"-1\"`, Answer: withIndex("-1")},
		{Name: "an index of 65 bits", Reason: "X-Consul-Index is", Answer: withIndex("18446744073709551616")},
		{Name: "two indexes", Reason: "X-Consul-Index is", Answer: withIndex("1,2")},
		{Name: "a bomb", Large: true, Reason: "the answer", Answer: func(w http.ResponseWriter, r *http.Request) {
			consulHeader(w)
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb())
		}},
		{Name: "a redirect", Reason: "a redirect to", Answer: func(w http.ResponseWriter, r *http.Request) {
			if r.Host == "elsewhere" {
				panic("a redirect was followed, with the token " + r.Header.Get("X-Consul-Token"))
			}
			http.Redirect(w, r, "http://elsewhere"+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		}},
		{Name: "a head without end", Large: true, Reason: "", Answer: func(w http.ResponseWriter, r *http.Request) {
			consulHeader(w)
			for n := range 1000 {
				w.Header().Add("X-A", strings.Repeat("x", 20<<10+n))
			}
			_, _ = io.WriteString(w, "[]")
		}},
	}
}

// endless returns an answer that repeats a text until nobody reads it.
func endless(text string, status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		consulHeader(w)
		w.WriteHeader(status)
		for n := 0; ; n += len(text) {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
			if n > 256<<20 {
				panic("an endless answer is read")
			}
			text = text[max(0, len(text)-32<<10):]
		}
	}
}

func withIndex(index string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		consulHeader(w)
		w.Header().Set("X-Consul-Index", index)
		_, _ = io.WriteString(w, "[]")
	}
}

// bomb is 100 MiB of blanks, in parts that are alike: to compress them takes seconds with -race.
var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(bytes.Repeat([]byte(" "), 1<<20))
	_ = w.Close()
	return bytes.Repeat(b.Bytes(), 100)
})
