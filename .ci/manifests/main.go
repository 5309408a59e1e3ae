// Manifests builds the Kubernetes manifests of a directory as kubectl apply --kustomize does, and reads each object strictly as the
// type that it names: a field that is misspelt, in a wrong place or of a wrong type is an error. It is a module of its own, so that
// parley does not depend on Kubernetes.
//
//	go run -C .ci/manifests . ../../.deploy/kubernetes
package main

import (
	"fmt"
	"os"
	"path/filepath"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// types are those of which the manifests have objects.
var types = map[string]func() any{
	"v1 Namespace":                            func() any { return new(core.Namespace) },
	"v1 Service":                              func() any { return new(core.Service) },
	"v1 Secret":                               func() any { return new(core.Secret) },
	"apps/v1 Deployment":                      func() any { return new(apps.Deployment) },
	"policy/v1 PodDisruptionBudget":           func() any { return new(policy.PodDisruptionBudget) },
	"autoscaling/v2 HorizontalPodAutoscaler":  func() any { return new(autoscaling.HorizontalPodAutoscaler) },
	"monitoring.coreos.com/v1 ServiceMonitor": func() any { return new(monitoring.ServiceMonitor) },
}

func main() {
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

func check(dir string) error {
	files := filesys.MakeFsInMemory()
	names, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := files.WriteFile(filepath.Base(name), b); err != nil {
			return err
		}
	}
	if err := files.WriteFile("redis.env", []byte("PARLEY_REDIS=redis://redis:6379/0\n")); err != nil { // which who runs it writes
		return err
	}
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, ".")
	if err != nil {
		return err
	}
	if objects.Size() == 0 {
		return fmt.Errorf("%s has no objects", dir)
	}
	for _, object := range objects.Resources() {
		kind := object.GetApiVersion() + " " + object.GetKind()
		name := fmt.Sprintf("%s %q", kind, object.GetName())
		make := types[kind]
		if make == nil {
			return fmt.Errorf("%s is of a type that is not known here", name)
		}
		b, err := object.AsYAML()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := yaml.UnmarshalStrict(b, make()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Println("ok:", name)
	}
	return nil
}
