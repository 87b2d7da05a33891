package config

import (
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestShownConfigurationHidesSecretsAndLoadsAgain(t *testing.T) {
	c := mustParse(t, "consul: { token: s3cret }"+tail)
	shown, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := c.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(shown), string(asJSON)} {
		if strings.Contains(text, "s3cret") || !strings.Contains(text, `***`) {
			t.Errorf("shown: %s", text)
		}
	}
	want := *c
	want.Consul.Token = "***"
	for _, text := range []string{string(shown), string(asJSON)} { // JSON is YAML
		if got := mustParse(t, text); !reflect.DeepEqual(got, &want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}
