"""Weights of others: read without unpickling, and turned into ours.

In:  files as their makers publish them (:mod:`files`), a state dict at a time.
Out: :class:`sslaudio.backbones.pretrained.base.Pretrained`, our names and settings.

A file a source: ``hf`` (Hugging Face's AST, both ways), ``gong`` (the ``.pth`` of AST and SSAST),
``timm`` (which finds out what it holds), ``deit`` (its vision transformers), ``mvit`` (its MViTv2,
for MAST).
"""
