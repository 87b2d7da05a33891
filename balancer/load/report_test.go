package load

import (
	"encoding/base64"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/test/verify"
)

// message returns an OrcaLoadReport, as protoc encodes it, with further fields that say nothing here.
func message(application, cpu float64) []byte {
	var b []byte
	double := func(field protowire.Number, v float64) {
		b = protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), math.Float64bits(v))
	}
	double(1, cpu)
	double(2, .9)
	b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), 77)
	b = protowire.AppendBytes(protowire.AppendTag(b, 8, protowire.BytesType), []byte("\x0a\x01a\x11\x00\x00\x00\x00\x00\x00\x00\x00"))
	double(9, application)
	return b
}

func TestUtilization(t *testing.T) {
	for value, want := range map[string]float64{
		"TEXT cpu_utilization=0.3":                                            .3,
		"TEXT cpu_utilization=0.3,application_utilization=0.5":                .5,
		"TEXT application_utilization=0, cpu_utilization:1.5":                 1.5,
		"TEXT named_metrics.queue=7,cpu_utilization=3e-1,eps=2":               .3,
		`JSON {"cpu_utilization":0.3,"named_metrics":{"a":1}}`:                .3,
		`JSON {"cpuUtilization":0.3,"applicationUtilization":0.7}`:            .7,
		"BIN " + base64.StdEncoding.EncodeToString(message(0, .25)):           .25,
		"BIN " + base64.StdEncoding.EncodeToString(message(math.NaN(), .25)):  .25,
		"BIN " + base64.RawStdEncoding.EncodeToString(message(.75, .25)):      .75,
		"BIN " + base64.StdEncoding.EncodeToString(message(0, .25)) + ",AAAA": .25,
		"BIN " + base64.StdEncoding.EncodeToString(message(math.Inf(1), -1)):  0,
		"BIN " + base64.StdEncoding.EncodeToString(message(.5, .5)[:17]):      0,
		"BIN ????":                            0,
		"BIN " + strings.Repeat("AAAA", 2000): 0,
		"":                                    0,
		"TEXT":                                0,
		"TEXT ":                               0,
		"text cpu_utilization=0.3":            0,
		"cpu_utilization=0.3":                 0,
		"TEXT cpu_utilization":                0,
		"TEXT cpu_utilization=":               0,
		"TEXT cpu_utilization=nan":            0,
		"TEXT cpu_utilization=inf":            0,
		"TEXT cpu_utilization=-0.5":           0,
		"TEXT cpu_utilization=0":              0,
		"TEXT cpu_utilization=1e300":          0,
		"TEXT cpu_utilization=1e999":          0,
		"TEXT cpu_utilization=0x1p-2":         0,
		"TEXT cpu_utilization=0.3,cpu_utilization=0.4":            0,
		"TEXT cpu_utilization=0." + strings.Repeat("3", 40):       0,
		"TEXT cpu_utilization=0.3" + strings.Repeat(",a=1", 2000): 0,
		"JSON {":                            0,
		`JSON {"cpu_utilization":"0.3"}`:    0,
		`JSON {"cpu_utilization":-1}`:       0,
		"JSON [0.3]":                        0,
		"JSON " + strings.Repeat("[", 4000): 0,
	} {
		verify.Equal(t, Utilization([]byte(value)), want, "utilization in %.80q", value)
	}
}

// Whatever a peer sends, what is read is 0 or a number within bounds.
func FuzzUtilization(f *testing.F) {
	f.Add([]byte("TEXT cpu_utilization=0.3,application_utilization=0.5"))
	f.Add([]byte(`JSON {"cpu_utilization":0.3}`))
	f.Add([]byte("BIN " + base64.StdEncoding.EncodeToString(message(.5, .25))))
	f.Add(message(.5, .25))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, u := range []float64{Utilization(b), BinaryUtilization(b), ofMessage(b), ofText(b), ofJSON(b)} {
			verify.That(t, u >= 0 && u <= maxUtilization, "%v of %q", u, b)
		}
	})
}

// A report as text or as a message costs no memory.
func TestUtilizationAllocatesNothing(t *testing.T) {
	binary := []byte(base64.StdEncoding.EncodeToString(message(.5, .25)))
	text := []byte("TEXT named_metrics.queue=7,cpu_utilization=0.3123")
	n := testing.AllocsPerRun(100, func() {
		if Utilization(text) != .3123 || BinaryUtilization(binary) != .5 {
			t.Fail()
		}
	})
	verify.Equal(t, n, 0., "allocations")
}
