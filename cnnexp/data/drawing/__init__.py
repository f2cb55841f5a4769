"""How `cnnexp.data.synthetic` draws: canvas, scenery, animals, and the evidence that tells them apart."""
