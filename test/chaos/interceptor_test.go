package chaos

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"

	"sluice/test/verify"
)

// interceptor is an HTTP proxy in front of an agent, which can answer in its place. Its
// methods may be called concurrently.
type interceptor struct {
	server *httptest.Server
	agent  http.Handler
	answer atomic.Pointer[middleware] // nil: the agent answers
}

type middleware func(agent http.Handler) http.Handler

func startInterceptor(t *testing.T, agent string) *interceptor {
	target := verify.Result(url.Parse(agent)).Must(t)
	i := &interceptor{agent: &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 100},
		// Without an agent the connection breaks, instead of a response with 502.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}}
	i.server = httptest.NewServer(i)
	t.Cleanup(i.server.Close)
	return i
}

func (i *interceptor) address() string { return i.server.Listener.Addr().String() }

// intercept answers in place of the agent until pass.
func (i *interceptor) intercept(m middleware) { i.answer.Store(&m) }

func (i *interceptor) pass() { i.answer.Store(nil) }

func (i *interceptor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler := i.agent
	if m := i.answer.Load(); m != nil {
		handler = (*m)(handler)
	}
	handler.ServeHTTP(w, r)
}
