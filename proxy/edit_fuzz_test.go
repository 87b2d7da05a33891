package proxy

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"sluice/proxy/http1"
	"sluice/route"
	"sluice/test/verify"
)

// FuzzEdits compares edits of a head with those of net/http's header, and checks that no
// value ends its line.
func FuzzEdits(f *testing.F) {
	f.Add("GET /a?b HTTP/1.1\r\nHost: a.example:80\r\nX-A: 1\r\nx-b: 2\r\nX-A: 3\r\n\r\n", "x-a", "X-B", "$host$path?$query $method", "Set-Cookie", "$$")
	f.Add("GET http://a.example?\x80 HTTP/1.1\r\nHost: a\r\nCookie:\t a \r\n\r\n", "cookie", "X-A", "$path", "X-A", "${authority}")
	f.Add("OPTIONS * HTTP/1.0\r\n\r\n", "X-A", "X-A", "a\r\nX-C: 1", "X-C", "\x00")
	f.Fuzz(func(t *testing.T, text, remove, set, value, add, more string) {
		e, err := route.NewHeaderEdits(map[string]string{set: value}, map[string]string{add: more}, []string{remove})
		if err != nil {
			t.Skip()
		}
		x := new(routedRequest)
		x.in, x.end = []byte(text), len(text)
		x.client = &client{listener: &listener{}, address: "192.0.2.1"}
		x.head.Reset(8<<10, http1.UsualFields)
		n, err := x.head.Scan(x.in)
		if err != nil || n == 0 {
			t.Skip()
		}
		_, fields := http1.CutLine(bytes.TrimLeft(x.in[:n], "\r\n"))
		got := x.appendEditedFields(nil, fields, &e)

		// The naive way: names to lists of values.
		want := make(http.Header)
		all := x.head.Fields()
		for i := range all {
			name := strings.ToLower(string(all[i].FieldName(x.in)))
			want[name] = append(want[name], string(all[i].Value(x.in)))
		}
		delete(want, strings.ToLower(remove))
		host := string(x.head.Authority(x.in))
		target := string(x.head.OriginTarget(x.in))
		if strings.Contains(host+target, "$") {
			t.Skip() // the naive way would read variables in values
		}
		path, query, _ := strings.Cut(target, "?")
		pairs := []string{"$$", "$"}
		for name, value := range map[string]string{
			"authority": host, "host": string(withoutPort([]byte(host))), "path": path, "query": query, "scheme": "http",
			"method": string(x.head.MethodName(x.in)), "client_address": "192.0.2.1", "user": "",
		} {
			pairs = append(pairs, "${"+name+"}", value, "$"+name, value)
		}
		expand := strings.NewReplacer(pairs...)
		want[strings.ToLower(set)] = []string{strings.Trim(expand.Replace(strings.Trim(value, " \t")), " \t")}
		lower := strings.ToLower(add)
		want[lower] = append(want[lower], strings.Trim(expand.Replace(strings.Trim(more, " \t")), " \t"))

		// What a strict server reads.
		var head http1.RequestHead
		head.Reset(8<<10, http1.UsualFields)
		whole := append([]byte("GET / HTTP/1.1\r\n"), got...)
		if n, err := head.Scan(whole); err == http1.ErrTooManyFields {
			t.Skip()
		} else if x.head.HTTP10 && err == http1.ErrHost {
			t.Skip() // HTTP/1.0 needs none
		} else if err != nil || n != len(whole) {
			t.Fatalf("%q: %v", got, err)
		}
		read := make(http.Header)
		edited := head.Fields()
		for i := range edited {
			name := strings.ToLower(string(edited[i].FieldName(whole)))
			read[name] = append(read[name], string(edited[i].Value(whole)))
		}
		for name, values := range want {
			verify.Slices(t, read[name], values, "%s", name)
		}
		for name := range read {
			verify.That(t, want[name] != nil, "%s was added: %q", name, got)
		}
	})
}
