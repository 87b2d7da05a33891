package interop

import (
	"errors"
	"io"
	"os"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"
	"go.yaml.in/yaml/v3"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	strict "sigs.k8s.io/yaml"

	"sluice/tags"
	"sluice/tags/native"
)

const deploy = "../../examples/deploy/"

func TestComposeReadsItsFile(t *testing.T) {
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: deploy, ConfigFiles: []types.ConfigFile{{Filename: deploy + "compose.yaml"}}, Environment: types.Mapping{"SLUICE_TOKEN": "t"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(project.Services) != 3 {
		t.Errorf("services %v, want 3", project.ServiceNames())
	}
}

func TestKubernetesReadsItsFile(t *testing.T) {
	file, err := os.Open(deploy + "kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	kinds := map[string]any{"ConfigMap": new(core.ConfigMap), "Deployment": new(apps.Deployment), "Service": new(core.Service)}
	for documents := yaml.NewDecoder(file); ; {
		var document map[string]any
		if err := documents.Decode(&document); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := yaml.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		kind, _ := document["kind"].(string)
		if err := strict.UnmarshalStrict(text, kinds[kind]); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		delete(kinds, kind)
	}
	if len(kinds) > 0 {
		t.Errorf("there is none of %v", kinds)
	}
}

// The tags in the job of an app are ones of sluice.
func TestNomadReadsItsFiles(t *testing.T) {
	parseJob(t, "sluice.nomad.hcl")
	routes := 0
	for _, group := range parseJob(t, "app.nomad.hcl").TaskGroups {
		for _, service := range group.Services {
			reading := native.Read(tags.Instance{Service: service.Name, Tags: service.Tags})
			if len(reading.Complaints) > 0 {
				t.Errorf("%s: %v", service.Name, reading.Complaints)
			}
			routes += len(reading.Routes)
		}
	}
	if routes != 1 {
		t.Errorf("%d routes, want 1", routes)
	}
}

func parseJob(t *testing.T, name string) *api.Job {
	t.Helper()
	file, err := os.Open(deploy + name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	job, err := jobspec2.Parse(name, file)
	if err != nil {
		t.Fatal(err)
	}
	return job
}
