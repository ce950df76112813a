"""Judging explainers on a data set: samples, models, the run, the paper's table.

    dataset = draw(known_only(voc_samples(Path("data")), model.indices), limit=500)
    evaluation = Evaluation(dataset, model, plan, Path("out"))
    evaluation.run()
    summary = summarise(evaluation.outcomes(), labels, metrics)

`kensa evaluate --config FILE` is the same from a settings file.
"""
