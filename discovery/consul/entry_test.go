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
		f.Add(verify.Result(json.MarshalIndent(entries, "", "    ")).Must(f))
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
		want := make([]serviceEntry, len(entries))
		for n, e := range entries {
			want[n] = shorten(e)
		}
		verify.Equal(t, got == nil, entries == nil, "%s: nil", answer)
		verify.Equal(t, text(append([]serviceEntry{}, got...)), text(want), "%s", answer)
	})
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return strings.NewReplacer(":null", ":[]", ":{}", ":[]").Replace(string(b))
}

func TestReadEntriesRejectsOtherValues(t *testing.T) {
	answers := []string{"{}", "5", `"x"`, "[1]", "[] []", "[]x", `[{"Node":5}]`, `[{"Service":{"Port":"x"}}]`, `[{"Checks":{}}]`}
	whole := verify.Result(json.Marshal([]*api.ServiceEntry{entry(nil)})).Must(t)
	for n := range whole {
		answers = append(answers, string(whole[:n]))
	}
	for _, answer := range answers {
		got, err := readEntries(strings.NewReader(answer), "")
		verify.That(t, err != nil, "no error for %q: %v", answer, got)
	}
	for _, tag := range []string{"", "wan"} {
		got, err := readEntries(strings.NewReader("null"), tag)
		verify.That(t, got == nil && err == nil, "null: got %v, %v", got, err)
	}
}
