package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	cri "k8s.io/cri-client/pkg"
)

const (
	runtimeSocket  = "unix:///run/containerd/containerd.sock"
	runtimeTimeout = 10 * time.Second
)

// imageTool stands for crictl with the two commands that kind calls: `crictl inspecti NAME` tells whether the node
// has an image, by its id and tags as JSON; `crictl images` lists them for a bug report.
// It returns the process's exit code: 1 where the image is not there.
func imageTool(arguments []string) int {
	service, err := cri.NewRemoteImageService(runtimeSocket, runtimeTimeout, nil, nil)
	switch {
	case err != nil:
	case len(arguments) == 2 && arguments[0] == "inspecti":
		err = inspect(service, arguments[1])
	case len(arguments) == 1 && arguments[0] == "images":
		err = list(service)
	default:
		err = errors.New("usage: crictl inspecti NAME | crictl images (this node has no other command of crictl)")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func inspect(service internalapi.ImageManagerService, name string) error {
	found, err := service.ImageStatus(context.Background(), &runtime.ImageSpec{Image: name}, false)
	if err != nil {
		return err
	}
	image := found.Image
	if image == nil {
		return fmt.Errorf("no such image %q", name)
	}
	status := map[string]any{"id": image.Id, "repoTags": image.RepoTags, "repoDigests": image.RepoDigests}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"status": status})
}

func list(service internalapi.ImageManagerService) error {
	images, err := service.ListImages(context.Background(), nil)
	for _, image := range images {
		fmt.Println(image.Id, image.Size, image.RepoTags)
	}
	return err
}
