package mesh

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/test/filled"
	"sluice/test/verify"
)

func TestDurationsOfConsul(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`"5s"`: 5 * time.Second, `"-1ns"`: -1, `""`: 0, `1500`: 1500, `null`: 0, `"1h2m3.5s"`: time.Hour + 2*time.Minute + 3500*time.Millisecond,
	} {
		var d Duration
		err := json.Unmarshal([]byte(text), &d)
		verify.That(t, err == nil && d == Duration(want), "%s: %v, %v", text, time.Duration(d), err)
	}
	for _, text := range []string{`"5"`, `{}`, `true`, `1e99`, `"5 s"`} {
		var d Duration
		verify.That(t, json.Unmarshal([]byte(text), &d) != nil, "%s: no error", text)
	}
}

func TestAnswersWithoutAChain(t *testing.T) {
	for text, want := range map[string]string{
		``: "cannot be read", `{}`: "no discovery chain", `{"Chain":null}`: "no discovery chain", `{"Chain":{}}`: "no discovery chain",
		`{"Chain":{"Nodes":[]}}`:                                                   "cannot be read",
		`{"Chain":{"ServiceName":"api","StartNode":"0"}}`:                          `of "api": want service "web"`,
		strings.Repeat(" ", 8<<20) + `{}`:                                          "want at most",
		`{"Chain":{"ServiceName":"web","StartNode":"0","Nodes":{` + many() + `}}}`: "want at most 4096",
	} {
		_, err := decodeChain([]byte(text), "web")
		verify.That(t, err != nil && strings.Contains(err.Error(), want), "%.60s: %v, want %s", text, err, want)
	}
}

// many returns more nodes than a chain may have.
func many() string {
	names := make([]string, maxChainNodes+1)
	for i := range names {
		names[i] = fmt.Sprintf(`"%d":{}`, i)
	}
	return strings.Join(names, ",")
}

// What a process writes of a chain is what the next one reads.
func TestEveryFieldOfAChainIsHandedOver(t *testing.T) {
	var want, got ChainState
	filled.New(t).Fill(&want)
	verify.NoError(t, json.Unmarshal(verify.Result(json.Marshal(want)).Must(t), &got))
	verify.DeepEqual(t, got, want, "the chain")
}

// No bytes make the decoder panic, and what it accepts, it reads again from what it writes.
func FuzzDecodeChain(f *testing.F) {
	f.Add([]byte(`{"Chain":{"ServiceName":"web","StartNode":"resolver:web.default.default.dc1","Nodes":{"resolver:web.default.default.dc1":` +
		`{"Type":"resolver","Name":"web.default.default.dc1","Resolver":{"Default":true,"ConnectTimeout":"5s","Target":"web.default.default.dc1"}}},` +
		`"Targets":{"web.default.default.dc1":{"ID":"web.default.default.dc1","Service":"web","SNI":"web.default.dc1.internal.x.consul"}}}}`))
	f.Add([]byte(`{"Chain":{"ServiceName":"web","StartNode":"r","Nodes":{"r":{"Type":"router","Routes":[null,{"Definition":{"Match":{"HTTP":{"Header":[{}]}},` +
		`"Destination":{"RequestTimeout":"-1s","RetryOn":["5xx"],"RequestHeaders":{"Add":{"a":"b"}}}},"NextNode":"r"}]},"s":{"Splits":[{"Weight":33.3}]}}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := decodeChain(body, "web")
		if err != nil {
			return
		}
		text := verify.Result(json.Marshal(struct{ Chain *Compiled }{c})).Must(t)
		again := verify.Result(decodeChain(text, "web")).Must(t)
		twice := verify.Result(json.Marshal(struct{ Chain *Compiled }{again})).Must(t)
		verify.Equal(t, string(twice), string(text), "read again")
	})
}
