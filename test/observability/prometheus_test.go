package observability

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"

	"sluice/test/consultest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// Each expression finds series in a Prometheus that scrapes a sluice with clients, as the files
// say. A comparison finds what it compares.
func TestExpressionsFindSeries(t *testing.T) {
	program := find(t, "prometheus")
	s, dir := start(t), t.TempDir()
	quick := strings.NewReplacer("15s", "1s", "127.0.0.1:8081", s.Address("admin"))
	for _, name := range []string{"prometheus.yml", "recording.yml", "alerts.yml"} {
		text := verify.Result(os.ReadFile(directory + name)).Must(t)
		verify.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(quick.Replace(string(text))), 0o600))
	}
	port, reserved, err := consultest.ReserveBlock()
	verify.NoError(t, err)
	defer reserved.Close()
	log := verify.Result(os.Create(filepath.Join(dir, "log"))).Must(t)
	defer log.Close()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	prometheus := verify.Result(subprocess.Start(subprocess.Options{Program: program, Output: log, Args: []string{
		"--config.file", filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address,
	}})).Must(t)
	missing := expressionsOf(t)
	defer func() {
		for _, e := range missing {
			t.Errorf("%s finds nothing:\n%s", e.at, e.text)
		}
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("Prometheus' log:\n%s", text)
		}
		_ = prometheus.Stop()
	}()
	consultest.Await(t, "each expression finds series", func() bool {
		request(t, s)
		missing = slices.DeleteFunc(missing, func(e expression) bool { return findsSeries(t, address, e.text) })
		return len(missing) == 0
	})
}

// findsSeries reports whether the Prometheus at an address has series for an expression.
func findsSeries(t *testing.T, address, text string) bool {
	t.Helper()
	root := verify.Result(parser.NewParser(parser.Options{}).ParseExpr(text)).Must(t)
	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		if e, ok := node.(*parser.BinaryExpr); ok && e.Op.IsComparisonOperator() {
			e.ReturnBool = true
		}
		return nil
	})
	response, err := http.Get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(root.String()))
	if err != nil {
		return false // it has not started yet
	}
	defer response.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []any }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || response.StatusCode == http.StatusServiceUnavailable {
		return false // likewise
	}
	verify.Require(t, answer.Error == "", "%s: %s", answer.Error, root)
	return len(answer.Data.Result) > 0
}
