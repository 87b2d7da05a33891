package discovery

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestParseValue(t *testing.T) {
	at := func(host string, port int, change ...func(*Instance)) Instance {
		i := Instance{Service: "star", ID: "a", Address: host, Port: port, Weight: 1}
		for _, c := range change {
			c(&i)
		}
		return i
	}
	for _, test := range []struct {
		value string
		want  Instance
	}{
		{`{"host":"127.0.0.1","port":6699}`, at("127.0.0.1", 6699)},
		{" {\"port\": \"80\", \"host\": \"star.example\", \"version\": 3}\n", at("star.example", 80)},
		{`{"host":"::1","port":80,"weight":0}`, at("::1", 80, func(i *Instance) { i.Weight = 0 })},
		{`{"host":"h","port":80,"weight":65535,"tags":["v2"],"meta":{"zone":"a"}}`, at("h", 80, func(i *Instance) {
			i.Weight, i.Tags, i.Meta = 65535, []string{"v2"}, map[string]string{"zone": "a"}
		})},
		{`{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}`, at("10.0.0.1", 80)},
		{"10.0.0.1:80\n", at("10.0.0.1", 80)},
		{"[::1]:80", at("::1", 80)},
		{"10.0.0.1_80", at("10.0.0.1", 80)},
		{"::1_80", at("::1", 80)},
		{"my_host_80", at("my_host", 80)},
	} {
		got, err := ParseValue("star", "a", []byte(test.value))
		verify.That(t, err == nil && reflect.DeepEqual(got, test.want), "%s: %+v, %v; want %+v", test.value, got, err, test.want)
	}
}

func TestParseValueRefuses(t *testing.T) {
	for value, want := range map[string]string{
		"":                                     "empty",
		" \n":                                  "empty",
		"{host:127.0.0.1 port:6699}":           "not a valid JSON object",
		`{"host":"h","port":80`:                "not a valid JSON object",
		`{"host":1,"port":80}`:                 "not a valid JSON object",
		`{"port":80}`:                          `"host" is missing`,
		`{"host":"h"}`:                         `"port" is missing`,
		`{"host":"h","port":0}`:                `port "0"`,
		`{"host":"h","port":65536}`:            `port "65536"`,
		`{"host":"h","port":8.5}`:              `port "8.5"`,
		`{"host":"h/x","port":80}`:             `host "h/x"`,
		`{"host":"300.1.1.1","port":80}`:       `host "300.1.1.1"`,
		`{"host":"h","port":1,"weight":-1}`:    `"weight" -1`,
		`{"host":"h","port":1,"weight":65536}`: `"weight" 65536`,
		"h":                                    `"h": want`,
		"[fe80::1%eth0]:80":                    "host",
		"h:http":                               `port "http"`,
		":80":                                  `host ""`,
		"_80":                                  `host ""`,
		"a b:80":                               `host "a b"`,
		"h:80\r\nx:81":                         `want`,
		strings.Repeat("x", 1000):              "x…",
		"null":                                 `"null": want`,
		`["h:80"]`:                             "want",

		`{"weight":` + strings.Repeat("9", 1000) + `}`: "cannot unmarshal number 999",
	} {
		got, err := ParseValue("star", "a", []byte(value))
		verify.Require(t, err != nil, "%q: %+v; want an error with %q", value, got, want)
		verify.Contains(t, err.Error(), want, "%q: the error", value)
		verify.That(t, len(err.Error()) <= 400, "%q: an error of %d octets", value, len(err.Error()))
		verify.DeepEqual(t, got, Instance{}, "%q: beside the error", value)
	}
}

func TestParseValues(t *testing.T) {
	for text, want := range map[string]string{
		"[]":                               "",
		" [ ] \n":                          "",
		"h:80":                             "h:80",
		"h_80\n":                           "h:80",
		`{"host":"h","port":80}`:           "h:80",
		"{\n\"host\":\"h\",\n\"port\":80}": "h:80",
		"# two\nh:80\n\n10.0.0.1:80 weight=3\r\n":                      "h:80 10.0.0.1:80*3",
		"[::1]:80\n[::2]:80 weight=0":                                  "[::1]:80 [::2]:80*0",
		`["h:80", "10.0.0.1_80", {"host":"g","port":"81","weight":2}]`: "h:80 10.0.0.1:80 g:81*2",
		"[\n  {\"host\":\"h\",\"port\":80},\n  \"h:81 weight=5\"\n]":   "h:80 h:81*5",
	} {
		set, err := ParseValues("star", []byte(text))
		var got []string
		for _, i := range set {
			word := i.HostPort()
			if i.Weight != 1 {
				word += fmt.Sprintf("*%d", i.Weight)
			}
			got = append(got, word)
			verify.That(t, i.ID == i.HostPort() && i.Service == "star", "%q: %+v", text, i)
		}
		verify.That(t, strings.Join(got, " ") == want && err == nil, "%q: %q, %v; want %q", text, got, err, want)
	}
	for text, want := range map[string]string{
		"":                         "empty: want []",
		"\n \n":                    "empty: want []",
		"# nobody":                 "no address: want []",
		"h:80\nh":                  `line 2: "h"`,
		"h:80\n# x\nh_80":          "line 3: h:80 is also in line 1",
		"[":                        "not a valid JSON list",
		`["h:80"`:                  "not a valid JSON list",
		`["h:80", 7]`:              "element 2",
		`["h:80", null]`:           "element 2",
		`["h:80", ""]`:             "element 2: empty",
		`[{"host":"h","port":0}]`:  `element 1: port "0"`,
		`{"host":"h"}`:             `"port" is missing`,
		"h:80 weight=x":            "weight=x: want",
		"h:80 weight=65536":        "weight=65536: want",
		"null":                     `line 1: "null"`,
		strings.Repeat("h\n", 1e5): "100000 values", // the last line end does not count
	} {
		set, err := ParseValues("star", []byte(text))
		verify.That(t, set == nil && err != nil && strings.Contains(err.Error(), want), "%q: %+v, %v; want an error with %q",
			shortened(text), set, err, want)
	}
}

func FuzzParseValues(f *testing.F) {
	for _, seed := range []string{`[{"host":"127.0.0.1","port":6699}, "h:80"]`, "h:80 weight=2\n[::1]:80", "[", "{}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := ParseValues("star", text)
		verify.That(t, err == nil || set == nil, "%q: %+v, %v", text, set, err)
		verify.Equal(t, len(Normalize(set)), len(set), "%q: an instance twice: %+v", text, set)
		for _, i := range set {
			verify.That(t, IsHost(i.Address) && i.Port >= 1 && i.Port <= 65535 && i.Weight >= 0 && i.Weight <= MaxWeight, "%q: %+v", text, i)
		}
	})
}

func FuzzParseValue(f *testing.F) {
	for _, seed := range []string{`{"host":"127.0.0.1","port":6699}`, "h:80", "h_80", "[::1]:80", `{"Addr":"h:1"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		i, err := ParseValue("star", "a", value)
		if err != nil {
			return
		}
		verify.That(t, IsHost(i.Address) && i.Port >= 1 && i.Port <= 65535 && i.Weight >= 0 && i.Weight <= MaxWeight, "%q: %+v", value, i)
		again := verify.Result(ParseValue("star", "a", []byte(i.HostPort()))).Must(t)
		verify.Equal(t, again.Key(), i.Key(), "%q: the key by its address %s", value, i.HostPort())
	})
}

func TestNewStatic(t *testing.T) {
	s := NewStatic("origin", peers(t, "127.0.0.1:19001", "[::1]:80 weight=0", "app.example.com:65535 weight=65535"))
	inBubble(t, func(t *testing.T, b *bubble) {
		b.Watch("origin", s)
		b.expect(0, call{0, "origin", "127.0.0.1:19001 [::1]:80 app.example.com:65535*65535"})
		status := b.status()
		verify.That(t, status.State == WatchFresh && status.Source == "static" && status.Instances == 3, "status: %+v", status)
	})
	want := []Instance{
		{Service: "origin", ID: "127.0.0.1:19001", Address: "127.0.0.1", Port: 19001, Weight: 1},
		{Service: "origin", ID: "[::1]:80", Address: "::1", Port: 80},
		{Service: "origin", ID: "app.example.com:65535", Address: "app.example.com", Port: 65535, Weight: 65535},
	}
	verify.That(t, equalSets(s.set, want), "got %+v, want %+v", s.set, want)
}

func peers(t *testing.T, texts ...string) (set []Instance) {
	t.Helper()
	for _, text := range texts {
		i, err := ParsePeer(text)
		verify.Require(t, err == nil, "%s: %v", text, err)
		set = append(set, i)
	}
	return set
}

func TestInvalidPeers(t *testing.T) {
	for _, mistake := range []string{
		"", "10.0.0.1", ":80", "::1:80", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:http",
		"10.0.0.1:80 weight=-1", "10.0.0.1:80 weight=65536", "10.0.0.1:80 5", "10.0.0.1:80 weight=1 down",
	} {
		i, err := ParsePeer(mistake)
		verify.That(t, err != nil, "%q: %+v", mistake, i)
	}
}

// A server gets each name as it is, also one that is a way to another folder.
func TestPathSegment(t *testing.T) {
	for _, name := range []string{".", "..", "...", "a/b", "../x", "a b", "%2E", "star-1", "ä?#"} {
		u := verify.Result(url.Parse("http://127.0.0.1/api/peers/" + PathSegment(name) + "/drain")).Must(t)
		mux, got := http.NewServeMux(), "nothing"
		mux.HandleFunc("/api/peers/{id}/drain", func(_ http.ResponseWriter, r *http.Request) { got = r.PathValue("id") })
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, u.String(), nil))
		verify.Equal(t, got, name, "%s", u)
	}
}
