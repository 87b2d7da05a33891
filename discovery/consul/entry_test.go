package consul

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/discoverytest"
	"sluice/test/verify"
)

func shortened(entries []*api.ServiceEntry) []serviceEntry {
	if entries == nil {
		return nil
	}
	short := make([]serviceEntry, len(entries))
	for n, e := range entries {
		short[n] = shorten(e)
	}
	return short
}

// FuzzReadEntries reads answers in Consul's format with any content.
func FuzzReadEntries(f *testing.F) {
	for _, entries := range [][]*api.ServiceEntry{
		nil, {}, {nil},
		{entry(nil), discoverytest.Maintenance(entry(nil), "disk \"swap\"\n☃")},
		{entry(func(e *api.ServiceEntry) {
			e.Service.Tags, e.Service.Meta = []string{"v1", ""}, map[string]string{"a": "b", "": "\\"}
			e.Service.Ports = api.ServicePorts{{Name: "http", Port: 80}, {Name: "grpc", Port: 81, Default: true}}
			e.Service.Proxy = &api.AgentServiceConnectProxyConfig{Config: map[string]any{"ID": []any{1.5, nil, true}}}
			e.Checks = append(e.Checks, nil)
		})},
	} {
		answer, err := json.MarshalIndent(entries, "", "    ")
		verify.NoError(f, err)
		f.Add(answer)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var entries []*api.ServiceEntry
		if json.Unmarshal(body, &entries) != nil {
			return
		}
		for _, e := range entries { // some of these cannot be written as they were read
			if e != nil && e.Service != nil {
				e.Service.Proxy, e.Service.Connect = nil, nil
			}
		}
		answer, err := json.Marshal(entries)
		if err != nil {
			return
		}
		entries = nil
		if json.Unmarshal(answer, &entries) != nil {
			return
		}
		got, err := readEntries(bytes.NewReader(answer), "")
		verify.Require(t, err == nil, "%s: %v", answer, err)
		if want := shortened(entries); !same(got, want) {
			t.Errorf("%s:\ngot  %s\nwant %s", answer, text(got), text(want))
		}
	})
}

func same(a, b []serviceEntry) bool { return (a == nil) == (b == nil) && text(a) == text(b) }

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return strings.NewReplacer(":null", ":[]", ":{}", ":[]").Replace(string(b))
}

func TestReadEntriesRejectsOtherValues(t *testing.T) {
	whole, err := json.Marshal([]*api.ServiceEntry{entry(nil)})
	verify.NoError(t, err)
	for n := range whole {
		if got, err := readEntries(bytes.NewReader(whole[:n]), ""); err == nil {
			t.Errorf("no error for %q: %v", whole[:n], got)
		}
	}
	for _, answer := range []string{"{}", "5", `"x"`, "[1]", "[] []", "[]x", `[{"Node":5}]`, `[{"Service":{"Port":"x"}}]`, `[{"Checks":{}}]`} {
		if got, err := readEntries(strings.NewReader(answer), ""); err == nil {
			t.Errorf("no error for %q: %v", answer, got)
		}
	}
	if got, err := readEntries(strings.NewReader("null"), ""); got != nil || err != nil {
		t.Errorf("null: got %v, %v", got, err)
	}
}
