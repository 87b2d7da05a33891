package observability

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"sluice/test/verify"
)

// directory has the files that are tested.
const directory = "../../examples/observability/"

// expression is one of PromQL, and where it is.
type expression struct{ at, text string }

// rule is an alert or a recording rule.
type rule struct {
	Alert, Record, Expr string
	Labels, Annotations map[string]string
}

// rulesOf returns the rules of a file.
func rulesOf(t *testing.T, file string) (rules []rule) {
	t.Helper()
	text := verify.Result(os.ReadFile(directory + file)).Must(t)
	var decoded struct {
		Groups []struct{ Rules []rule }
	}
	verify.NoError(t, yaml.Unmarshal(text, &decoded))
	for _, g := range decoded.Groups {
		rules = append(rules, g.Rules...)
	}
	verify.Require(t, len(rules) > 0, "%s has no rules", file)
	return rules
}

// dashboard has the parts of dashboard.json that are tested.
type dashboard struct {
	UID        string
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
	Panels []panel
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ H, W, X, Y int }
	Targets                  []struct{ Expr, RefID string }
	FieldConfig              struct{ Defaults struct{ Unit string } }
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text := verify.Result(os.ReadFile(directory + "dashboard.json")).Must(t)
	verify.NoError(t, json.Unmarshal(text, &d))
	return d
}

// withoutVariables replaces Grafana's variables by values that PromQL allows there.
var withoutVariables = strings.NewReplacer("$__rate_interval", "1m", "$job", "sluice", "$service", ".*", "$route", ".*", "$instance", ".*")

// expressionsOf returns all expressions of rules, of the dashboard and of its variables.
func expressionsOf(t *testing.T) (all []expression) {
	t.Helper()
	for _, file := range []string{"recording.yml", "alerts.yml"} {
		for _, r := range rulesOf(t, file) {
			all = append(all, expression{file + ": " + r.Alert + r.Record, r.Expr})
		}
	}
	d := readDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, expression{"dashboard.json: " + p.Title, withoutVariables.Replace(target.Expr)})
		}
	}
	values := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	for _, v := range d.Templating.List {
		query, ok := v.Query.(map[string]any)
		if !ok {
			continue // it is of another type
		}
		found := values.FindStringSubmatch(query["query"].(string))
		if found == nil {
			t.Errorf("dashboard.json: the variable %s has the query %q, want label_values(SERIES, LABEL)", v.Name, query["query"])
			continue
		}
		all = append(all, expression{"dashboard.json: variable " + v.Name, withoutVariables.Replace(fmt.Sprintf("count by (%s) (%s)", found[2], found[1]))})
	}
	return all
}

// world is the metrics that there are: by name the values of each label.
type world map[string]map[string]map[string]bool

// fixed are labels whose values sluice gives. Those of others come from users.
var fixed = []string{"class", "state", "limit", "by", "kind", "harmless", "cause", "result", "of", "reason"}

// check returns what an expression names, and w does not have.
func (w world) check(text string) (problems []string) {
	root, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		return []string{err.Error()}
	}
	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			problems = append(problems, w.checkSelector(n)...)
		case *parser.AggregateExpr:
			problems = append(problems, w.checkLabels(n.Expr, n.Grouping)...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				problems = append(problems, w.checkLabels(n.LHS, n.VectorMatching.MatchingLabels)...)
				problems = append(problems, w.checkLabels(n.RHS, n.VectorMatching.MatchingLabels)...)
			}
		}
		return nil
	})
	return problems
}

func (w world) checkSelector(s *parser.VectorSelector) (problems []string) {
	known, ok := w[s.Name]
	if !ok {
		return []string{"there is no metric " + s.Name}
	}
	for _, m := range s.LabelMatchers {
		if m.Name == model.MetricNameLabel {
			continue
		}
		values, ok := known[m.Name]
		if !ok {
			problems = append(problems, fmt.Sprintf("%s has no label %s", s.Name, m.Name))
			continue
		}
		if !slices.Contains(fixed, m.Name) || m.Value == "" {
			continue
		}
		wanted := []string{m.Value}
		if m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp {
			wanted = strings.Split(m.Value, "|")
		}
		for _, value := range wanted {
			if !values[value] {
				problems = append(problems, fmt.Sprintf("%s has no %s=%q, but %q", s.Name, m.Name, value, slices.Sorted(maps.Keys(values))))
			}
		}
	}
	return problems
}

// checkLabels returns the labels that no metric of an expression has.
func (w world) checkLabels(expr parser.Expr, names []string) (problems []string) {
	has := make(map[string]bool)
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if s, ok := node.(*parser.VectorSelector); ok {
			for name := range w[s.Name] {
				has[name] = true
			}
		}
		return nil
	})
	for _, name := range names {
		if !has[name] {
			problems = append(problems, fmt.Sprintf("the label %s is on no metric of %s", name, expr))
		}
	}
	return problems
}

// addRecorded adds what the recording rules make.
func (w world) addRecorded(t *testing.T) {
	for _, r := range rulesOf(t, "recording.yml") {
		root := verify.Result(parser.NewParser(parser.Options{}).ParseExpr(r.Expr)).Must(t)
		result := make(map[string]map[string]bool)
		parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
			if a, ok := node.(*parser.AggregateExpr); ok {
				for _, name := range a.Grouping {
					if name != labels.BucketLabel {
						result[name] = map[string]bool{}
					}
				}
			}
			return nil
		})
		w[r.Record] = result
	}
}
