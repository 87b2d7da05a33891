package route

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

func corsOf(t testing.TB, o CORSOptions) *CORS {
	t.Helper()
	return verify.Result(NewCORS(o)).Must(t)
}

// Origins are compared as the Fetch standard does, byte by byte ("CORS check"); patterns stand for
// whole hosts only.
func TestAllowedOrigins(t *testing.T) {
	for _, test := range []struct {
		pattern, origin string
		want            bool
	}{
		{"https://app.example.com", "https://app.example.com", true},
		{"https://app.example.com", "http://app.example.com", false},
		{"https://app.example.com", "https://app.example.com:8443", false},
		{"https://app.example.com", "https://app.example.com.evil.example", false},
		{"https://app.example.com", "https://APP.example.com", false},
		{"https://app.example.com", "https://app.example.com/", false},
		{"https://app.example.com", "null", false},
		{"https://app.example.com", "", false},
		{"https://app.example.com:8443", "https://app.example.com:8443", true},
		{"https://*.example.com", "https://a.example.com", true},
		{"https://*.example.com", "https://a.b.example.com", true},
		{"https://*.example.com", "https://example.com", false},
		{"https://*.example.com", "https://.example.com", false},
		{"https://*.example.com", "https://aexample.com", false},
		{"https://*.example.com", "https://a.example.com:8443", false},
		{"https://*.example.com", "https://evil.example/.example.com", false},
		{"https://*.example.com", "https://evil.example?.example.com", false},
		{"https://*.example.com", "https://evil.example#.example.com", false},
		{"https://*.example.com", "https://user@a.example.com", false},
		{"https://*.example.com", "https://evil.example:1.example.com", false},
		{"https://*.example.com", "https://evil.example https://a.example.com", false},
		{"https://*.example.com", "http://a.example.com", false},
		{"https://*.example.com:8443", "https://a.example.com:8443", true},
		{`~https://[a-z]+\.example\.com`, "https://app.example.com", true},
		{`~https://[a-z]+\.example\.com`, "https://app.example.com.evil.example", false},
		{`~https://[a-z]+\.example\.com`, "xhttps://app.example.com", false},
		{`~https://a\.example|https://b\.example`, "https://b.example", true},
		{`~https://a\.example|https://b\.example`, "https://b.example.evil.example", false},
		{"null", "null", true},
		{"null", "https://a.example", false},
		{"*", "https://anybody.example", true},
		{"*", "null", true},
		{"capacitor://localhost", "capacitor://localhost", true},
		{"http://[::1]:3000", "http://[::1]:3000", true},
		{"*", strings.Repeat("x", maxOrigin+1), true}, // for everybody: the answer is the star
		{`~.*\.example`, strings.Repeat("x", maxOrigin) + ".example", false},
	} {
		c := corsOf(t, CORSOptions{AllowOrigins: []string{"https://other.invalid", test.pattern}})
		verify.Equal(t, c.Allows(test.origin), test.want, "%s allows %q", test.pattern, test.origin)
	}
}

func TestInvalidCORS(t *testing.T) {
	for _, test := range []struct {
		o   CORSOptions
		key string
	}{
		{CORSOptions{AllowOrigins: []string{"app.example.com"}}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"https://app.example.com/"}}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"https://App.example.com"}}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"https://app.example.com:443"}}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"http://app.example.com:80"}}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"https://*"}}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"https://a*.example.com"}}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"~("}}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"~a)|(b"}}, "allow_origins"}, // it would end the group around it
		{CORSOptions{AllowOrigins: []string{"*"}, AllowCredentials: true}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"https://a.example", "null"}, AllowCredentials: true}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"~.*"}, AllowCredentials: true}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"~https?://.+"}, AllowCredentials: true}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"~https://.+"}, AllowCredentials: true}, "allow_origins"},
		{CORSOptions{AllowOrigins: []string{"https://a.example"}, ExposeHeaders: []string{"*"}, AllowCredentials: true}, "expose_headers"},
	} {
		_, err := NewCORS(test.o)
		wrong, ok := errors.AsType[*OptionError](err)
		verify.That(t, ok && wrong.Key == test.key, "%+v: %v, want an error of %s", test.o, err, test.key)
	}
}

func text(fields [][2]string) string {
	var lines []string
	for _, f := range fields {
		lines = append(lines, strings.TrimPrefix(f[0], "Access-Control-")+": "+f[1])
	}
	return strings.Join(lines, "; ")
}

func TestCORSFields(t *testing.T) {
	one := CORSOptions{AllowOrigins: []string{"https://a.example"}, AllowMethods: []string{"GET", "PUT"}, AllowHeaders: []string{"X-A", "X-B"}, ExposeHeaders: []string{"X-C"}, MaxAge: time.Minute}
	trusted := one
	trusted.AllowCredentials = true
	open := CORSOptions{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}, ExposeHeaders: []string{"*"}}
	for _, test := range []struct {
		o                               CORSOptions
		origin, fields, preflightFields string
		varies                          bool
	}{
		{one, "https://a.example", "Allow-Origin: https://a.example; Expose-Headers: X-C", "Allow-Methods: GET, PUT; Allow-Headers: X-A, X-B; Max-Age: 60", true},
		{one, "https://b.example", "", "Allow-Methods: GET, PUT; Allow-Headers: X-A, X-B; Max-Age: 60", true},
		{one, "", "", "Allow-Methods: GET, PUT; Allow-Headers: X-A, X-B; Max-Age: 60", true},
		{trusted, "https://a.example", "Allow-Origin: https://a.example; Allow-Credentials: true; Expose-Headers: X-C", "Allow-Methods: GET, PUT; Allow-Headers: X-A, X-B; Max-Age: 60", true},
		{open, "https://b.example", "Allow-Origin: *; Expose-Headers: *", "Allow-Methods: PATCH; Allow-Headers: authorization,x-d; Max-Age: 0", false},
		{open, "", "Allow-Origin: *; Expose-Headers: *", "Allow-Methods: PATCH; Allow-Headers: authorization,x-d; Max-Age: 0", false},
	} {
		c := corsOf(t, test.o)
		verify.Equal(t, text(c.Fields(test.origin)), test.fields, "%+v, origin %q", test.o, test.origin)
		verify.Equal(t, text(c.PreflightFields("PATCH", "authorization,x-d")), test.preflightFields, "preflight, %+v", test.o)
		verify.Equal(t, c.Varies(), test.varies, "%+v varies", test.o)
	}
}

// FuzzOrigin checks that what a wildcard allows is, for who parses URLs, a page of a host below
// that of the wildcard.
func FuzzOrigin(f *testing.F) {
	for _, origin := range []string{"https://a.example.com", "https://a.b.example.com", "https://x/.example.com", "https://u@a.example.com", "null", "https://..example.com", "https://a\x00.example.com"} {
		f.Add(origin)
	}
	c := corsOf(f, CORSOptions{AllowOrigins: []string{"https://*.example.com", "https://exact.example"}, AllowCredentials: true})
	valid := regexp.MustCompile(`^https://[a-z0-9._-]+$`)
	f.Fuzz(func(t *testing.T, origin string) {
		fields := c.Fields(origin)
		if len(fields) == 0 {
			return
		}
		verify.Require(t, fields[0][1] == origin, "the answer to %q names %q", origin, fields[0][1])
		u, err := url.Parse(origin)
		verify.Require(t, err == nil && valid.MatchString(origin), "%q is allowed, and no origin: %v", origin, err)
		verify.Require(t, u.Host == "exact.example" || strings.HasSuffix(u.Host, ".example.com"), "%q is allowed, with the host %q", origin, u.Host)
	})
}
