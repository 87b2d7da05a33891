package admin

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/config"
	"sluice/route"
)

const (
	firstConfig  = "consul: { token: s3cret-value }\nservices: { star: { consul: {} } }\nroutes: [ { path: /, service: star } ]\n"
	secondConfig = "consul: { token: s3cret-value }\nservices: { star: { peers: ['127.0.0.1:19001'] } }\nroutes: [ { path: /api, service: star } ]\n"
)

func TestRoutesInTheOrderTheyAreTried(t *testing.T) {
	star, origin := &route.Service{Name: "star"}, &route.Service{Name: "origin"}
	table, err := route.NewTable([]route.Route{{Path: "/", Service: origin}, {Host: "*.Example.com", Path: "/", Service: star}, {Path: "/api/", Service: star}})
	if err != nil {
		t.Fatal(err)
	}
	h := handlerOf(Options{Table: func() *route.Table { return table }})
	got := getJSON[[]Route](t, h, "/api/routes")
	want := []Route{{"*.example.com", "/", "star"}, {"", "/api", "star"}, {"", "/", "origin"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestConfigHasTheRevisionInUseAndTheLatestRefusal(t *testing.T) {
	past := history(t, firstConfig, secondConfig)
	h := handlerOf(Options{History: past})

	type shown struct {
		Number  uint64
		Time    time.Time
		Source  string
		Hash    string
		Pending []string
		Config  struct {
			Services map[string]struct{ Peers []string }
			Routes   []Route
		}
		Reloads Reloads
	}
	got := getJSON[shown](t, h, "/api/config")
	if got.Number != 2 || got.Source != "sluice.yaml" || got.Hash != "0123" || got.Pending == nil || time.Since(got.Time) > time.Minute {
		t.Errorf("got %+v", got)
	}
	if !slices.Equal(got.Config.Services["star"].Peers, []string{"127.0.0.1:19001"}) || got.Config.Routes[0].Path != "/api" {
		t.Errorf("config: got %+v", got.Config)
	}
	if got.Reloads.Applied != 2 || got.Reloads.Refused != 0 || got.Reloads.LastError != nil {
		t.Errorf("reloads: got %+v", got.Reloads)
	}

	_, err := config.Parse("sluice.yaml", []byte("nonsense: 1\nservices: { star: { peers: [x] } }\nroutes: [ { path: /, service: star } ]\n"))
	past.Refused("sluice.yaml", err)
	refused := getJSON[shown](t, h, "/api/config").Reloads
	if refused.Refused != 1 || refused.LastError == nil || len(refused.LastError.Errors) != 2 ||
		!strings.HasPrefix(refused.LastError.Errors[0], "sluice.yaml:1:") || !strings.Contains(refused.LastError.Errors[1], `"x"`) {
		t.Errorf("after errors in the file: got %+v", refused.LastError)
	}
	past.Refused("sluice.yaml", errors.New("permission denied"))
	if refused := getJSON[shown](t, h, "/api/config").Reloads; !slices.Equal(refused.LastError.Errors, []string{"permission denied"}) {
		t.Errorf("after another error: got %+v", refused.LastError)
	}
}

func TestConfigHistory(t *testing.T) {
	h := handlerOf(Options{History: history(t, firstConfig, secondConfig)})
	list := getJSON[[]Revision](t, h, "/api/config/history")
	if len(list) != 2 || list[0].Number != 2 || list[1].Number != 1 || list[1].Time.IsZero() {
		t.Fatalf("got %+v", list)
	}
	_, body := get(t, h, "/api/config/history/1")
	if !strings.Contains(body, `"number": 1`) || !strings.Contains(body, `"path": "/"`) {
		t.Errorf("got %s", body)
	}
}

func TestSecretsAreMasked(t *testing.T) {
	h := handlerOf(Options{History: history(t, firstConfig, secondConfig), Token: func() string { return "admin-s3cret" }})
	for path := range everyPath {
		_, body := get(t, h, path, "Authorization", "Bearer admin-s3cret")
		if strings.Contains(body, "s3cret") {
			t.Errorf("%s shows a secret: %s", path, body)
		}
	}
}
