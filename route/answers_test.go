package route

import (
	"testing"

	"sluice/healthcheck/statuses"
	"sluice/route/pages"
	"sluice/test/verify"
)

func TestErrorPageOfAStatus(t *testing.T) {
	page := func(set, body string, json, peers bool) ErrorPage {
		return ErrorPage{
			Page: &Page{Body: pages.Text(body), JSON: json}, Statuses: verify.Result(statuses.Parse(set)).Must(t), Peers: peers,
		}
	}
	all := ErrorPages{page("503", "503", false, false), page("503", "503 json", true, false), page("5xx", "5xx", false, true), page("404", "404", false, true)}
	for _, test := range []struct {
		status       int
		ofPeer, json bool
		want         string
	}{
		{503, false, false, "503"},
		{503, false, true, "503 json"},
		{503, true, false, "5xx"},
		{503, true, true, ""},
		{502, false, false, "5xx"},
		{502, false, true, ""},
		{404, false, false, "404"},
		{403, false, false, ""},
		{200, true, false, ""},
		{99, true, false, ""},
	} {
		got := ""
		if p := all.Of(test.status, test.ofPeer, test.json); p != nil {
			got = string(p.Bytes())
		}
		verify.Equal(t, got, test.want, "%+v", test)
	}
}
